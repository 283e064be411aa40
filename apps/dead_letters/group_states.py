"""The states of a failure group: where it stands in the operators' work. They change no letter.

    for_review ──> open ──> resolved ──(fails again)──> regressed ──> open
        ^           │
        └─(its end)─┴── snoozed

People move a group by `grouping`, the clock by `tallies`; whether its failures are retried (a hold) is apart.
"""

from typing import Final

FOR_REVIEW: Final = "for_review"
"""Nobody has looked yet, or a snooze is over."""

OPEN: Final = "open"
"""Somebody has looked at it, or it is assigned: it is being worked on."""

SNOOZED: Final = "snoozed"
"""Not to be seen until a time, or until it has failed so many times more."""

RESOLVED: Final = "resolved"
"""Done with: by a person, or by the clock once no letter is open and every redriven task has ended. Letters that are
restored open it again."""

REGRESSED: Final = "regressed"
"""It was resolved and has failed again."""

ALL: Final = (FOR_REVIEW, OPEN, SNOOZED, RESOLVED, REGRESSED)
TO_REVIEW: Final = (FOR_REVIEW, REGRESSED)
"""Those that wait for a look."""

TRANSITIONS: Final[dict[str, frozenset[str]]] = {
    FOR_REVIEW: frozenset({OPEN, SNOOZED, RESOLVED}),
    OPEN: frozenset({SNOOZED, RESOLVED}),
    SNOOZED: frozenset({FOR_REVIEW, OPEN, RESOLVED}),
    RESOLVED: frozenset({REGRESSED, OPEN}),
    REGRESSED: frozenset({OPEN, SNOOZED, RESOLVED}),
}
WORDS: Final = {
    FOR_REVIEW: "for review",
    OPEN: "open",
    SNOOZED: "snoozed",
    RESOLVED: "resolved",
    REGRESSED: "regressed",
}
