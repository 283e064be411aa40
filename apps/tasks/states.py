"""The states of a task, what each means, and the moves between them; `lifecycle` alone makes the moves.

accepted ──> pending ──────────────> running ──> succeeded
                ^                   │  │  │
                │   retrying <──────┘  │  └────> dead ──(redrive)──> pending
                │      │               v
                │      └──> running  waiting ──> pending      pending, retrying, waiting, running ──> cancelled
"""

from typing import Final

PENDING: Final = "pending"
"""Accepted, due at `next_attempt_at`; no attempt was made in this cycle, or its children are all final."""

RUNNING: Final = "running"
"""A worker holds it: the attempt's token fences everybody else."""

RETRYING: Final = "retrying"
"""An attempt ended without success and another is due at `next_attempt_at`: failed, parked, handed back or lost."""

WAITING: Final = "waiting"
"""A parent whose children run. It holds no slot; clients see it as running."""

SUCCEEDED: Final = "succeeded"
"""Final: there is a result."""

DEAD: Final = "dead"
"""Failed for good: there is exactly one dead letter of this cycle. Only an operator's redrive leads out of it."""

CANCELLED: Final = "cancelled"
"""Final: the client or an operator called it off."""

DUE: Final = (PENDING, RETRYING)
UNFINISHED: Final = (PENDING, RETRYING, RUNNING, WAITING)
FINAL: Final = (SUCCEEDED, DEAD, CANCELLED)
ALL: Final = (*UNFINISHED, *FINAL)
UNSUCCESSFUL: Final = (WAITING, DEAD, CANCELLED)
"""Those that are neither on their way through a queue nor succeeded: few, and looked for by operators."""

TRANSITIONS: Final[dict[str, frozenset[str]]] = {
    PENDING: frozenset({RUNNING, DEAD, CANCELLED}),
    RETRYING: frozenset({RUNNING, DEAD, CANCELLED}),
    RUNNING: frozenset({SUCCEEDED, RETRYING, WAITING, DEAD, CANCELLED}),
    WAITING: frozenset({PENDING, DEAD, CANCELLED}),
    DEAD: frozenset({PENDING}),
    SUCCEEDED: frozenset(),
    CANCELLED: frozenset(),
}

HIGH: Final = "high"
DEFAULT: Final = "default"
LOW: Final = "low"
WEBHOOKS: Final = "webhooks"
QUARANTINE: Final = "quarantine"
PRIORITIES: Final = (HIGH, DEFAULT, LOW)
TOGETHER: Final = (*PRIORITIES, WEBHOOKS)
"""Those that one worker serves side by side; quarantine is served alone."""
QUEUES: Final = (*TOGETHER, QUARANTINE)
WEIGHTS: Final = {HIGH: 6, DEFAULT: 3, LOW: 1}
"""How free slots are dealt between the queues that have due work."""


def shown(state: str) -> str:
    """The state as clients know it."""
    return RUNNING if state == WAITING else state
