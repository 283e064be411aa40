"""Deletes what was kept long enough: apps register what and how, the clock and `manage.py prune` do it in batches."""

import time
from collections.abc import Callable
from dataclasses import dataclass

Step = Callable[[], int]

SECONDS_AT_ONCE = 2.0  # of one tick of the clock, which holds its transaction meanwhile


@dataclass(frozen=True, slots=True)
class Prune:
    """Something that grows old. words: what it is, in the plural. step: deletes one batch, oldest first; how many."""

    name: str
    words: str
    step: Step


_prunes: dict[str, Prune] = {}


def register(name: str, words: str, step: Step) -> None:
    """Add one; from AppConfig.ready. They are pruned in the order of their names."""
    _prunes[name] = Prune(name, words, step)


def all_of_them() -> list[Prune]:
    """By name."""
    return [_prunes[name] for name in sorted(_prunes)]


def tick() -> int:
    """Prune for a moment, batch by batch; how many rows. A chore of the clock."""
    until = time.monotonic() + SECONDS_AT_ONCE
    deleted = 0
    for prune in all_of_them():
        while time.monotonic() < until:
            count = prune.step()
            deleted += count
            if not count:
                break
    return deleted
