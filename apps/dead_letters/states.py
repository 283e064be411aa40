"""The states of a dead letter: `triage` alone decides. Groups are watched and assigned; that changes no letter."""

from typing import Final

OPEN: Final = "open"
"""A task has failed for good and waits for a person."""

REDRIVEN: Final = "redriven"
"""Final for this cycle: the task was put back to work. If it dies again, that is another letter."""

DISCARDED: Final = "discarded"
"""Final: decided not to run again; its task stays dead until retention deletes both."""

ALL: Final = (OPEN, REDRIVEN, DISCARDED)
TRANSITIONS: Final[dict[str, frozenset[str]]] = {
    OPEN: frozenset({REDRIVEN, DISCARDED}),
    REDRIVEN: frozenset(),
    DISCARDED: frozenset(),
}
