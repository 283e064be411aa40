"""The states of a dead letter. `triage` and `bulk` decide, by `decisions`; what is done to groups changes no letter."""

from typing import Final

OPEN: Final = "open"
"""A task has failed for good and waits for a person."""

REDRIVEN: Final = "redriven"
"""Final for this cycle: the task was put back to work. If it dies again, that is another letter."""

DISCARDED: Final = "discarded"
"""Decided not to run again: its task stays dead until retention deletes both. Until then it can be restored."""

ALL: Final = (OPEN, REDRIVEN, DISCARDED)
TRANSITIONS: Final[dict[str, frozenset[str]]] = {
    OPEN: frozenset({REDRIVEN, DISCARDED}),
    REDRIVEN: frozenset(),
    DISCARDED: frozenset({OPEN}),
}
