"""The command line of the soak."""

import argparse
from collections.abc import Callable

KILLED = ("worker", "api", "clock", "quarantine", "postgres", "valkey")
FROZEN = ("valkey", "worker", "postgres")
BETWEEN = (0.5, 2.5)  # seconds between two blows; with --minutes more
BETWEEN_LONG = (2.0, 5.0)
PATIENCE = 600.0  # seconds to the last end, and for one task to be accepted


def names(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    """A parser of comma-separated names of these."""

    def parse_names(text: str) -> list[str]:
        found = [name for name in text.split(",") if name]
        if unknown := set(found) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(known)}")
        return found

    return parse_names


def parse(description: str) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks to send (20000)")
    parser.add_argument("--kills", type=int, default=40, help="blows: kills, freezes and flushes together (40)")
    parser.add_argument("--minutes", type=float, help="send and strike for so long, instead of --tasks and --kills")
    parser.add_argument(
        "--kill", type=names(KILLED), metavar="NAME,...",
        help=f"what to kill, one at random each time: {', '.join(KILLED)} (worker); Postgres as with -m immediate",
    )  # fmt: skip
    parser.add_argument(
        "--freeze", type=names(FROZEN), default=[], metavar="NAME,...",
        help=f"what to freeze with SIGSTOP: {', '.join(FROZEN)}",
    )  # fmt: skip
    parser.add_argument("--frozen", type=float, default=3.0, help="seconds that a freeze lasts (3)")
    parser.add_argument("--flush", action="store_true", help="also FLUSHALL")
    parser.add_argument("--workers", type=int, default=2, help="workers at a time (2)")
    parser.add_argument("--delay-ms", type=int, default=1000, help="the upstream's thinking time (1000)")
    parser.add_argument(
        "--rate", type=float,
        help="tasks to send in a second, 0: as fast as it goes (so many that they last as long as the blows; "
        "with --minutes 200)",
    )  # fmt: skip
    parser.add_argument("--in-flight", type=int, default=64, help="requests of the sender at a time (64)")
    parser.add_argument("--backlog", type=int, default=5000, help="unfinished tasks at which the sender waits (5000)")
    parser.add_argument("--seed", type=int, default=None, help="of the random moments")
    args = parser.parse_args()
    if args.kill is None:
        args.kill = [] if args.freeze or args.flush else ["worker"]
    if args.rate is None:
        # What a blow takes itself (a freeze, a restart) comes to the time between two.
        args.rate = 200.0 if args.minutes else args.tasks / (args.kills * (sum(BETWEEN) / 2 + 2) or 1)
    return args
