"""How fast tasks are accepted: enqueue() with 64 callers, POST /v1/tasks, and pgbench with 64 clients as the limit.

pgbench inserts one row of the same text per transaction, by prepared statements, which is what this machine's Postgres
can commit one by one. No worker runs. Bar: enqueue() at least as fast.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import psycopg

from apps.core.embedded.postgres_place import find_place
from bench import driver, gateway, process, servers
from bench.report import markdown, number
from bench.tasks import contenders, stage
from bench.tasks.sender import BODY
from bench.tasks.stage import MODELS, Stage

CLIENTS = 64
BAR = 1.0
TABLE = """
DROP TABLE IF EXISTS bench_row;
CREATE TABLE bench_row (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(), body text NOT NULL, created_at timestamptz NOT NULL DEFAULT now())
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of this part."""
    parser.add_argument("--rounds", type=int, default=5, help="rounds (5)")
    parser.add_argument("--seconds", type=float, default=4, help="of pgbench and of HTTP in each round (4)")
    parser.add_argument("--tasks", type=int, default=10_000, help="that enqueue() accepts in each round (10000)")


def main(args: argparse.Namespace) -> int:
    """Measure and print; exit status as the others."""
    with stage.start(args.folder, only="postgres,valkey,web") as where, ExitStack() as stack:
        settings = stage.refuse_unless_durable(where.database_url)
        environment = {"REDRIVE_DATA_DIR": str(where.folder / "data"), "BENCH_KEY_NAME": where.key_name}
        command = [sys.executable, "-m", "bench.tasks.redrive_sender"]
        senders = {
            "enqueue()": contenders.start_sender(stack, where, "plain", [*command, "--without-keys"], environment),
            "enqueue() with Idempotency-Keys": contenders.start_sender(stack, where, "keyed", command, environment),
        }
        with psycopg.connect(where.database_url) as connection:
            connection.execute(TABLE)
        script = where.folder / "insert.sql"
        script.write_text(
            f"INSERT INTO bench_row (body) VALUES ('{json.dumps(BODY).replace(chr(39), chr(39) * 2)}');\n"
        )
        rounds = []
        for index in range(args.rounds + 1):
            found = {"pgbench": pgbench(where, script, args.seconds)}
            found |= {name: send(sender, args.tasks) for name, sender in senders.items()}
            found["POST /v1/tasks/chat/completions"] = post(where, args.seconds)
            said = ", ".join(f"{name} {rate:,.0f}" for name, rate in found.items())
            print(f"round {index}{' (to warm up)' if not index else ''}: {said}", file=sys.stderr)
            rounds += [found] if index else []
    text = (
        f"{gateway.machine()}; {args.rounds} rounds; {CLIENTS} clients or callers each; {settings}.\n\n{table(rounds)}"
    )
    print(text)
    if args.readme:
        gateway.write_section("accept", f"{text}\n")
    return 0


def pgbench(where: Stage, script: Path, seconds: float) -> float:
    """Transactions a second."""
    program = find_place(where.folder / "data").programs / "pgbench"
    flags = ["-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "2", "-T", str(max(1, round(seconds)))]
    done = subprocess.run(
        [str(program), *flags, "-f", str(script), where.database_url], capture_output=True, text=True, check=False
    )
    found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    if done.returncode or not found:
        raise servers.StartError(f"pgbench ended with {done.returncode}: {done.stderr[-500:]}")
    return float(found[1])


def send(sender: "subprocess.Popen[str]", count: int) -> float:
    """Tasks a second by a sender with so many callers."""
    assert sender.stdin is not None
    assert sender.stdout is not None
    sender.stdin.write(f"{count} {MODELS[0]}\n")
    sender.stdin.flush()
    return count / float(json.loads(sender.stdout.readline())["seconds"])


def post(where: Stage, seconds: float) -> float:
    """Accepts a second over HTTP, without Idempotency-Keys."""
    url = f"{str(where.up['url']).rstrip('/')}/v1/tasks"
    python = Path(sys.executable)
    place = servers.Place(where.folder, python, python, server_cpu=None, other_cpu=None)
    server = servers.Server("redrive", "", url, key=where.key, root=lambda: where.pid("web"))
    found = driver.plain(place, server, seconds)
    process.wait_until_quiet(where.pid("web"), at_most=5)
    time.sleep(0.2)
    if found["errors"]:
        raise driver.LoadError(f"{found['errors']} errors; {found['first_error']}")
    return float(found["requests"] / found["seconds"])


def table(rounds: list[dict[str, float]]) -> str:
    """Medians, and the ratios within each round."""
    rows = []
    for name in rounds[0]:
        ratios = sorted(found[name] / found["pgbench"] for found in rounds)
        is_bar = name == "enqueue()"
        verdict = "" if not is_bar else f">= {BAR:g}: {'met' if median(ratios) >= BAR else 'MISSED'}"
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        rows.append(
            [name, number(median(found[name] for found in rounds)), f"{median(ratios):.2f}", spread, verdict or "-"]
        )
    return markdown(["accepted", "rows/s", "x pgbench", "rounds", "bar"], rows)
