"""Benchmarks of durable tasks, each with every row that a task owes and with Postgres' fsync and synchronous_commit on.

.venv/bin/python -m bench.tasks beside              beside textbook Celery and procrastinate, about 6 minutes
.venv/bin/python -m bench.tasks beside --scale 0.2 --rounds 1    a quick look; too short to be quoted
.venv/bin/python -m bench.tasks accept              enqueue() beside pgbench, and POST /v1/tasks beside both
.venv/bin/python -m bench.tasks history             claim, sweep and lists over 10 thousand to 5 million tasks
.venv/bin/python -m bench.tasks memory              RSS of a worker over 20,000 tasks and with 500 in flight
.venv/bin/python -m bench.tasks beside --help       the options of one of them; --readme writes its tables
"""

import argparse
import signal
import sys

from bench.tasks import accept, beside, history, memory, stage

PARTS = {"beside": beside, "accept": accept, "history": history, "memory": memory}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.tasks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Linux only. Exit status: 0, also with missed bars; 1 a duty was missed; 2 something did not start.",
    )
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    for name, part in PARTS.items():
        found = parts.add_parser(name, help=(part.__doc__ or "").strip(), description=part.__doc__)
        part.add_arguments(found)
        stage.add_arguments(found)
    return parser.parse_args()


def main() -> int:
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    return PARTS[args.part].main(args)


if __name__ == "__main__":
    sys.exit(main())
