"""Loads 1,000,000 dead letters in 5,000 groups, then times the operators' pages and the clock's chores beside them.

.venv/bin/python -m bench.triage                       load (about 6 minutes, 4 GB), then measure
.venv/bin/python -m bench.triage --loaded              measure what an earlier run has loaded
.venv/bin/python -m bench.triage --letters 20000 --groups 500    a quick look, which says nothing
.venv/bin/python -m bench.triage --loaded --explain 100    with the plans of statements of 100 ms and more
.venv/bin/python -m bench.triage --readme              writes the tables into bench/README.md
"""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from bench import gateway, process, servers
from bench.tasks import stage

NAME = "bench_triage"
EMPTY = "bench_triage_empty"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.triage", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = process.REPOSITORY / ".redrive-bench" / "triage"
    parser.add_argument("--folder", type=Path, default=folder, help="logs and data, which stay (.redrive-bench/triage)")
    parser.add_argument("--loaded", action="store_true", help="do not load: an earlier run has")
    parser.add_argument("--letters", type=int, default=1_000_000, help="deaths to load (1000000)")
    parser.add_argument("--groups", type=int, default=5_000, help="failure groups (5000)")
    parser.add_argument("--runs", type=int, default=5, help="times that each page is asked for (5)")
    parser.add_argument("--only", default="", help="only pages whose names hold these words; nothing but pages")
    parser.add_argument("--explain", type=float, metavar="MS", help="explain and analyse statements that take as long")
    parser.add_argument("--readme", action="store_true", help="replace the results in bench/README.md")
    return parser.parse_args()


def main() -> int:
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    try:
        with stage.start(args.folder, only="postgres,valkey") as where:
            settings = stage.refuse_unless_durable(where.database_url)
            url = connect(where, args)
            if not args.loaded:
                fill(url, args)
            text = f"{gateway.machine()}; {size(url)}; {settings}.\n\n{measure(args)}\n"
    except servers.StartError as error:
        print(error, file=sys.stderr)
        return 2
    print(text)
    if args.readme:
        gateway.write_section("triage", text)
    return 0


def connect(where: stage.Stage, args: argparse.Namespace) -> str:
    """Make what databases are missing, bring both to the present schema, and point Django to the loaded one."""
    made = urlsplit(where.database_url)
    url = made._replace(path=f"/{NAME}").geturl() if args.loaded else where.make_database(NAME)
    os.environ.update(
        REDRIVE_DATA_DIR=str(where.folder / "data"), DJANGO_SETTINGS_MODULE="config.settings", REDRIVE_LOG_LEVEL="ERROR"
    )
    for each in (where.make_database(EMPTY), url):
        os.environ["REDRIVE_DATABASE_URL"] = each
        subprocess.run([sys.executable, "manage.py", "migrate", "-v", "0"], cwd=process.REPOSITORY, check=True)
    import django

    django.setup()
    return url


def fill(url: str, args: argparse.Namespace) -> None:
    """The letters, and around them providers with routes and a worker."""
    from apps.providers.models import ModelRoute, Provider, Upstream
    from bench.triage import load, pages, shape

    _, owner = pages.log_in()
    load.load(url, letters=args.letters, groups=args.groups, owner=owner.pk)
    for place in shape.UPSTREAMS:
        provider, model = place.split("/")
        at, _ = Provider.objects.get_or_create(name=provider, defaults={"base_url": "http://127.0.0.1:9/v1"})
        route, _ = ModelRoute.objects.get_or_create(public_name=model)
        Upstream.objects.create(route=route, provider=at, model=model, position=route.upstreams.count() + 1)


def measure(args: argparse.Namespace) -> str:
    """All tables."""
    from bench.triage import chores, dying, pages

    client, user = pages.log_in()
    figures: list[chores.Figure] = []
    operation = None
    if not args.only:
        figures, operation = chores.create(client, user)
    timings = []
    for name, url in pages.all_of_them(operation):
        if args.only in name:
            timings.append(pages.measure(client, name, url, runs=args.runs))
            print(f"{name}: {timings[-1].median * 1e3:,.0f} ms", file=sys.stderr)
    if args.explain is not None:
        explain(timings, args.explain / 1e3)
    tables = [pages.table(timings)]
    if operation is not None:
        figures += chores.release(operation, runs=args.runs) + chores.fold(runs=3) + chores.alerts(runs=3)
        tables += [chores.table(figures), dying.table(dying.measure(EMPTY, runs=10))]
    return "\n\n".join(tables)


def explain(timings: list[Any], least: float) -> None:
    """Print the plans of slow statements."""
    from django.db import connection

    for timing in timings:
        seconds, statement, params = timing.slowest
        if seconds >= least:
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS) {statement}", params)
                plan = "\n".join(row[0] for row in cursor.fetchall())
            print(f"\n{timing.name}: {seconds * 1e3:,.0f} ms\n{statement[:3000]}\n{plan}", file=sys.stderr)


def size(url: str) -> str:
    """What there is, in words."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM dead_letters_deadletter), (SELECT count(*) FROM dead_letters_failuregroup), "
            "pg_size_pretty(pg_database_size(current_database()))"
        ).fetchone()
    assert row is not None
    return f"{row[0]:,} letters in {row[1]:,} groups, a database of {row[2]}"


if __name__ == "__main__":
    sys.exit(main())
