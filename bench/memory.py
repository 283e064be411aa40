"""How much the gateway's memory grows per 10,000 requests once it is warm; the bar is 1 MB.

Starts the gateway as bench.gateway does, sends `--warm` requests, then `--requests` in steps, reads the web
process's RSS after each step and fits a line. A missed bar is reported and is no error.

  .venv/bin/python -m bench.memory                       10,000 warm, 50,000 measured
  .venv/bin/python -m bench.memory --stream              the same with short SSE streams
  .venv/bin/python -m bench.memory --server aiohttp      a rival, to compare with
  .venv/bin/python -m bench.memory --readme              and put the result into bench/README.md
"""

import argparse
import signal
import sys
from contextlib import ExitStack
from statistics import linear_regression

from bench import driver, gateway, process, servers

BAR = 1.0  # MB per 10,000 requests


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--warm", type=int, default=10_000, help="requests before the first reading (10000)")
    parser.add_argument("--requests", type=int, default=50_000, help="requests measured (50000)")
    parser.add_argument("--step", type=int, default=5_000, help="requests between two readings (5000)")
    parser.add_argument("--stream", action="store_true", help="streams of 5 chunks instead of plain answers")
    parser.add_argument("--server", choices=list(servers.STARTERS), default="redrive", help="(redrive)")
    gateway.add_place_arguments(parser)
    parser.add_argument("--readme", action="store_true", help="replace the result in bench/README.md")
    return parser.parse_args()


def readings(where: servers.Place, server: servers.Server, args: argparse.Namespace) -> list[tuple[int, float]]:
    """(requests since the warm-up, RSS in MB) after each step; raises LoadError when a request fails."""
    found = []
    for sent in range(0, args.requests + 1, args.step):
        result = driver.count(where, server, args.step if sent else args.warm, stream=args.stream)
        if result["errors"]:
            raise driver.LoadError(f"{result['errors']} errors; {result['first_error']}")
        root = server.root() or 0
        process.wait_until_quiet(root)
        rss = process.rss_bytes(process.tree(root)) / 1e6
        print(f"{sent:>8,} requests after the warm-up: {rss:8.2f} MB", flush=True)
        found.append((sent, rss))
    return found


def run(args: argparse.Namespace) -> int:
    where = gateway.place(args)
    with ExitStack() as stack:
        upstream = servers.start_upstream(where, delay_ms=0, chunks=5, interval_ms=1)
        stack.callback(upstream.stop)
        server = servers.STARTERS[args.server](where, upstream.url)
        stack.callback(server.stop)
        found = readings(where, server, args)
    slope = linear_regression([sent for sent, _ in found], [rss for _, rss in found]).slope * 10_000
    verdict = "met" if slope <= BAR else "MISSED"
    kind = "streams" if args.stream else "plain answers"
    line = f"{args.server}, {kind}: {slope:+.3f} MB per 10,000 requests; bar {BAR:g} MB: {verdict}"
    print(line)
    if args.readme:
        measured = f"{args.requests:,} requests after {args.warm:,} to warm up, from {found[0][1]:.1f} MB"
        gateway.write_section("memory", f"{gateway.machine()}; {measured}.\n\n{line}\n")
    return 0


def main() -> int:
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    try:
        return run(args)
    except servers.StartError as error:
        print(error, file=sys.stderr)
        return 2
    except driver.LoadError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
