"""The gateway beside a bare aiohttp relay, a bare FastAPI relay and the LiteLLM proxy, in one run.

Each server is one process on one CPU; load generator, scripted upstream, Postgres and Valkey share another.
In every round each server gets a window of plain requests (1 kB, 64 connections) and a window of 200 open SSE
streams (50 chunks, one each 20 ms), in an order that rotates. The gateway does all its duties: key check,
validation, limits in Redis, ledger rows in Postgres; they are counted in its stores afterwards, and the run
fails when one is missing. Prints medians over the rounds, ratios made within each round, and the bars.
A missed bar is reported and is no error.

  .venv/bin/python -m bench.gateway                          all servers, about 7 minutes
  .venv/bin/python -m bench.gateway --only redrive,aiohttp   two of them
  .venv/bin/python -m bench.gateway --rounds 1 --seconds 2   a quick look; too short to be quoted
  .venv/bin/python -m bench.gateway --readme                 and put the tables into bench/README.md
"""

import argparse
import json
import os
import platform
import re
import signal
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import driver, duties, process, report, servers, venv

README = Path(__file__).parent / "README.md"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gateway",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Linux only (it pins processes). Exit status: 0, also with missed bars; 1 errors or a missing "
        "duty; 2 a server did not start.",
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds per server (5)")
    parser.add_argument("--seconds", type=float, default=5, help="length of each window (5)")
    parser.add_argument("--streams", type=int, default=200, help="streams open at once (200)")
    parser.add_argument("--chunks", type=int, default=50, help="chunks per stream (50)")
    parser.add_argument("--interval-ms", type=float, default=20, help="between two chunks of a stream (20)")
    parser.add_argument("--delay-ms", type=float, default=0, help="the upstream's thinking time (0)")
    parser.add_argument(
        "--only",
        type=chosen,
        default=list(servers.STARTERS),
        metavar="NAMES",
        help=f"servers to measure, with commas between: {','.join(servers.STARTERS)} (all)",
    )
    add_place_arguments(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's figures there")
    parser.add_argument("--readme", action="store_true", help="replace the results in bench/README.md")
    return parser.parse_args()


def chosen(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in servers.STARTERS]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
    return [name for name in servers.STARTERS if name in names]


def add_place_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to run; shared with bench.memory."""
    folder = process.REPOSITORY / ".redrive-bench"
    parser.add_argument("--folder", type=Path, default=folder, help="logs, data, venv (.redrive-bench)")
    parser.add_argument("--venv", type=Path, help="folder of the rivals' environments (FOLDER; made when absent)")
    parser.add_argument("--cpus", metavar="A,B", help="A: server under test, B: all else (the first two)")


def place(args: argparse.Namespace) -> servers.Place:
    """The folders and CPUs asked for; makes the rivals' environment when it is absent."""
    allowed = sorted(os.sched_getaffinity(0))
    cpus = [int(cpu) for cpu in args.cpus.split(",")] if args.cpus else allowed[:2]
    if len(cpus) != 2 or cpus[0] == cpus[1] or not set(cpus) <= set(allowed):
        raise servers.StartError(f"two different CPUs are needed, of these: {allowed}")
    folder = args.folder.resolve()
    environments = (args.venv or folder).resolve()
    python = venv.ensure(environments / "relays", venv.RELAYS)
    litellm = venv.ensure(environments / "litellm", venv.LITELLM)
    return servers.Place(folder, python, litellm, server_cpu=cpus[0], other_cpu=cpus[1])


def measure(
    where: servers.Place, running: list[servers.Server], args: argparse.Namespace
) -> tuple[report.Rounds, list[dict[str, Any]]]:
    """All rounds, as figures and as the load generator gave them."""
    rounds: report.Rounds = []
    raw: list[dict[str, Any]] = []
    length = args.chunks * args.interval_ms / 1000
    for index in range(args.rounds):
        values: dict[str, dict[str, Any]] = {server.name: {} for server in running}
        turn = index % len(running)
        for server in running[turn:] + running[:turn]:
            print(f"round {index + 1} of {args.rounds}: {server.name}", file=sys.stderr)
            server.pin(where.server_cpu)  # again: a thread or a process may be new
            plain = driver.plain(where, server, args.seconds)
            settle(server)
            streams = driver.streams(where, server, args.seconds, connections=args.streams, length=length)
            settle(server)
            raw.append({"round": index + 1, "server": server.name, "plain": plain, "streams": streams})
            values[server.name] = report.figures(plain, streams)
        report.add_ttft_added(values)
        rounds.append(values)
    return rounds, raw


def settle(server: servers.Server) -> None:
    """Let it finish what the load left behind, so that the next one has the CPU for itself."""
    if (root := server.root()) is not None:
        process.wait_until_quiet(root)


def errors(raw: list[dict[str, Any]], running: list[servers.Server], before: duties.Tally | None) -> list[str]:
    """Failed requests, and duties of the gateway that its stores have no trace of."""
    found = []
    for entry in raw:
        for kind in ("plain", "streams"):
            if entry[kind]["errors"]:
                number, first = entry[kind]["errors"], entry[kind]["first_error"]
                found.append(f"{entry['server']}, {kind}, round {entry['round']}: {number} errors; {first}")
            elif not entry[kind]["requests"] and not entry[kind]["chunks"]:
                found.append(f"{entry['server']}, {kind}, round {entry['round']}: nothing was answered")
    if before is not None:
        gateway = next(server for server in running if server.name == report.GATEWAY)
        mine = [entry for entry in raw if entry["server"] == report.GATEWAY]
        answered = sum(entry["plain"]["finished"] + entry["streams"]["finished"] for entry in mine)
        undone = duties.missing(before, duties.take(gateway.up), answered)
        found += [f"duty missing: {what}" for what in undone]
    return found


def machine() -> str:
    """What a reader must know of the machine to judge the figures."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {model.group(1) if model else platform.machine()}, "
        f"{os.cpu_count()} CPUs, Linux {platform.release().split('-')[0]}, Python {platform.python_version()}"
    )


def conditions(args: argparse.Namespace) -> str:
    """The machine and the load, in one sentence."""
    return (
        f"{machine()}; {args.rounds} rounds of {args.seconds:g} s; 64 connections; {args.streams} streams of "
        f"{args.chunks} chunks, one each {args.interval_ms:g} ms."
    )


def write_section(name: str, text: str) -> None:
    """Replace what stands between the two marks called `name` in bench/README.md."""
    section = re.compile(f"(<!-- {name} results: begin.*?-->\n).*?(<!-- {name} results: end -->)", re.DOTALL)
    README.write_text(section.sub(lambda found: found[1] + text + found[2], README.read_text()))


def run(args: argparse.Namespace) -> int:
    where = place(args)
    with ExitStack() as stack:
        running = [
            servers.start_upstream(where, delay_ms=args.delay_ms, chunks=args.chunks, interval_ms=args.interval_ms)
        ]
        stack.callback(running[0].stop)
        for name in args.only:
            print(f"starting {name}", file=sys.stderr)
            running.append(servers.STARTERS[name](where, running[0].url))
            stack.callback(running[-1].stop)
        gateway = next((server for server in running if server.name == report.GATEWAY), None)
        before = duties.take(gateway.up) if gateway else None
        rounds, raw = measure(where, running, args)
        wrong = errors(raw, running, before)
        text = f"{conditions(args)}\n\n{report.whole(rounds, {s.name: s.duties for s in running})}\n"
    print(text)
    if args.json:
        everything = {"conditions": conditions(args), "rounds": rounds, "raw": raw}
        args.json.write_text(json.dumps(everything, indent=1))
    for line in wrong:
        print(f"ERROR {line}", file=sys.stderr)
    if args.readme and not wrong:
        write_section("gateway", text)
    return 1 if wrong else 0


def main() -> int:
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    try:
        return run(args)
    except servers.StartError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
