"""How much a worker's memory grows per 10,000 tasks once it is warm, and what 500 attempts in flight take.

Bar: at most 1 MB per 10,000 tasks, as for the gateway.
"""

import argparse
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import linear_regression

from bench import gateway, process
from bench.tasks import beside, contenders, stage
from bench.tasks.stage import MODELS, SLOW

BAR = 1.0  # MB per 10,000 tasks
IN_FLIGHT = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of this part."""
    parser.add_argument("--warm", type=int, default=10_000, help="tasks before the first reading (10000)")
    parser.add_argument("--tasks", type=int, default=40_000, help="tasks measured (40000)")
    parser.add_argument("--step", type=int, default=5_000, help="tasks between two readings (5000)")


def main(args: argparse.Namespace) -> int:
    """Measure and print; exit status as the others."""
    with stage.start(args.folder) as where, ExitStack() as stack:
        redrive = contenders.redrive(stack, where, Path(sys.executable))
        begun = rss(redrive)
        beside.measure(where, redrive, args.warm, 0)
        found = [(0, rss(redrive))]
        for done in range(args.step, args.tasks + 1, args.step):
            beside.measure(where, redrive, args.step, 0)
            found.append((done, rss(redrive)))
            print(f"{done:>8,} tasks after the warm-up: {found[-1][1]:8.2f} MB", file=sys.stderr)
        redrive.send(IN_FLIGHT, MODELS[SLOW])
        redrive.sent()
        highest, ends = 0.0, time.monotonic() + 3
        while time.monotonic() < ends:
            highest = max(highest, rss(redrive))
            time.sleep(0.05)
    slope = linear_regression([done for done, _ in found], [size for _, size in found]).slope * 10_000
    sizes = f"{begun:.0f} MB at its start, {found[0][1]:.0f} MB warm, {found[-1][1]:.0f} MB at the end"
    text = (
        f"{gateway.machine()}; {args.tasks:,} tasks after {args.warm:,} to warm up; RSS of the worker {sizes}, "
        f"{highest:.0f} MB with {IN_FLIGHT} in flight.\n\n"
        f"redrive: {slope:+.3f} MB per 10,000 tasks; bar {BAR:g} MB: {'met' if slope <= BAR else 'MISSED'}"
    )
    print(text)
    if args.readme:
        gateway.write_section("worker memory", f"{text}\n")
    return 0


def rss(redrive: contenders.Contender) -> float:
    """Megabytes."""
    return process.rss_bytes(process.tree(redrive.worker())) / 1e6
