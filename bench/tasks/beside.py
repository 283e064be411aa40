"""Rounds of Redrive beside textbook Celery and procrastinate, and what they say."""

import argparse
import sys
import time
from contextlib import ExitStack
from statistics import median
from typing import Any

from bench import gateway, process, servers, venv
from bench.report import markdown, number
from bench.tasks import contenders, stage
from bench.tasks.contenders import Contender
from bench.tasks.stage import MODELS, SLOW, Stage

Figures = dict[str, float]
Rounds = list[dict[str, Figures]]  # per round: contender -> figures
GIVE_UP = 600.0  # seconds
COUNTS = {"redrive": (5_000, 5_000), "celery": (2_000, 40), "procrastinate": (5_000, 5_000)}
"""Tasks of a round with an upstream of 0 ms and of 1 s; Celery has four in flight."""


class DutyError(Exception):
    """A task ended without a row that it owes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of this part."""
    names = list(contenders.STARTERS)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each upstream (3)")
    parser.add_argument("--scale", type=float, default=1.0, help="times the tasks of a round; 0.2 is a quick look (1)")
    parser.add_argument("--only", type=lambda text: text.split(","), default=names, help=f"of {','.join(names)} (all)")
    parser.add_argument("--conn-max-age", type=int, default=0, help="seconds Celery keeps its connections (Django's 0)")
    parser.add_argument("--concurrency", type=int, default=500, help="jobs procrastinate runs at once (500)")
    parser.add_argument("--no-answers", action="store_true", help="procrastinate does not keep its answers")


def run(args: argparse.Namespace) -> int:
    """Start all, measure, print."""
    python = venv.ensure((args.venv or args.folder).resolve() / "rivals", contenders.REQUIREMENTS)
    with stage.start(args.folder) as where, ExitStack() as stack:
        settings = stage.refuse_unless_durable(where.database_url)
        running = [_start(name, stack, where, python, args) for name in args.only]
        for one in running:
            measure(where, one, 200, 0)  # imports, connections, plans
        text = [f"{gateway.machine()}; {args.rounds} rounds; {settings}; nothing is pinned to a CPU."]
        for delay in MODELS:
            rounds = [_round(where, running, delay, args, index) for index in range(args.rounds)]
            text += [table(f"{delay} ms upstream", rounds, running), ratios(rounds, delay)]
    print("\n\n".join(text))
    if args.readme:
        gateway.write_section("tasks", "\n\n".join(text) + "\n")
    return 0


def _start(name: str, stack: ExitStack, where: Stage, python: Any, args: argparse.Namespace) -> Contender:
    options: dict[str, dict[str, Any]] = {
        "celery": {"conn_max_age": args.conn_max_age},
        "procrastinate": {"concurrency": args.concurrency, "keep_answers": not args.no_answers},
    }
    print(f"starting {name}", file=sys.stderr)
    return contenders.STARTERS[name](stack, where, python, **options.get(name, {}))


def _round(
    where: Stage, running: list[Contender], delay: int, args: argparse.Namespace, index: int
) -> dict[str, Figures]:
    found = {}
    turn = index % len(running)
    for one in running[turn:] + running[:turn]:
        count = max(4, int(COUNTS[one.name][delay == SLOW] * args.scale))
        found[one.name] = figures = measure(where, one, count, delay)
        said = ", ".join(f"{name} {value:.2f}" for name, value in figures.items())
        print(f"round {index + 1}, {delay} ms, {one.name}: {said}", file=sys.stderr)
    return {one.name: found[one.name] for one in running}


def measure(where: Stage, one: Contender, count: int, delay: int) -> Figures:
    """Send so many tasks, wait until all are finished, and see that nothing was left out."""
    pids = {"worker": one.worker(), "postgres": where.pid("postgres")}
    process.wait_until_quiet(pids["worker"])
    before = {name: one.ask(statement) for name, statement in one.rows.items()}
    mark = one.ask(one.mark)
    cpu = {name: process.cpu_seconds(process.tree(pid)) for name, pid in pids.items()}
    began = time.perf_counter()
    one.send(count, MODELS[delay])
    sent = one.sent()
    while one.ask(one.finished, mark) < count:
        if time.perf_counter() - began > GIVE_UP:
            raise DutyError(f"{one.name}: {one.ask(one.finished, mark):.0f} of {count} finished in {GIVE_UP:g} s")
        time.sleep(0.04)
    seconds = time.perf_counter() - began
    used = {name: process.cpu_seconds(process.tree(pid)) - cpu[name] for name, pid in pids.items()}
    rss = process.rss_bytes(process.tree(pids["worker"]))
    for name, statement in one.rows.items():
        if (made := one.ask(statement) - before[name]) < count:
            raise DutyError(f"{one.name}: {made:.0f} of {count} {name}")
    return {
        "tasks_s": count / seconds,
        "send_s": count / sent["seconds"],
        "after_s": seconds - sent["seconds"],
        "worker_ms": used["worker"] / count * 1e3,
        "postgres_ms": used["postgres"] / count * 1e3,
        "sender_ms": sent["cpu"] / count * 1e3,
        "rss_mb": rss / 1e6,
        "count": count,
    }


COLUMNS = [  # heading, figure, digits
    ("tasks", "count", 0),
    ("end to end tasks/s", "tasks_s", 0),
    ("sent tasks/s", "send_s", 0),
    ("s after the last was sent", "after_s", 1),
    ("CPU ms/task: worker", "worker_ms", 2),
    ("Postgres", "postgres_ms", 2),
    ("sender", "sender_ms", 2),
    ("worker RSS MB", "rss_mb", 0),
]
BARS = {  # (delay, rival) -> at least so many times its tasks/s
    (0, "celery"): 10.0,
    (SLOW, "celery"): 80.0,
    (0, "procrastinate"): 3.0,
}


def table(title: str, rounds: Rounds, running: list[Contender]) -> str:
    """Medians over the rounds."""
    rows = [
        [one.name, one.about, *(number(middle(rounds, one.name, name), digits) for _, name, digits in COLUMNS)]
        for one in running
    ]
    return markdown([title, "is", *(heading for heading, _, _ in COLUMNS)], rows)


def middle(rounds: Rounds, name: str, figure: str) -> float:
    return median(round_[name][figure] for round_ in rounds)


def ratios(rounds: Rounds, delay: int) -> str:
    """Redrive's tasks/s over each rival's, the median of the rounds' own ratios, beside the bar."""
    rows = []
    for rival in [name for name in rounds[0] if name != "redrive" and "redrive" in rounds[0]]:
        found = sorted(round_["redrive"]["tasks_s"] / round_[rival]["tasks_s"] for round_ in rounds)
        bar = BARS.get((delay, rival))
        verdict = "-" if bar is None else "met" if median(found) >= bar else "MISSED"
        spread = f"{found[0]:.1f} to {found[-1]:.1f}"
        rows.append([f"{delay} ms: x {rival}", f"{median(found):.1f}", spread, f">= {bar:g}" if bar else "-", verdict])
    return markdown(["end to end, redrive / rival", "ratio", "rounds", "bar", "verdict"], rows)


def main(args: argparse.Namespace) -> int:
    """Exit status: 0, also with missed bars; 1 a duty was missed; 2 something did not start."""
    try:
        return run(args)
    except DutyError as error:
        print(f"ERROR {error}", file=sys.stderr)
        return 1
    except servers.StartError as error:
        print(error, file=sys.stderr)
        return 2
