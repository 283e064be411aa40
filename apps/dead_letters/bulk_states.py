"""The states of a bulk operation, and of each of its items.

    counting ──> ready ──(Start)──> holding ──> canary ──> running ──> done
                   ^                   │          │           │
                   └──────(Undo)───────┘          └─> stopped <┘ ──(go on)──> running

Before it has ended people may pause, resume and cancel it; the clock makes all other moves (`bulk.pacer`).
"""

from typing import Final

COUNTING: Final = "counting"
"""Its items are being frozen: later letters are none of its business."""

READY: Final = "ready"
"""Counted; somebody may start it. After an hour without a start it is cancelled."""

HOLDING: Final = "holding"
"""Started; nothing happens for some seconds, in which it can be undone."""

CANARY: Final = "canary"
"""The first few are released; the others go on only if all of these succeed."""

RUNNING: Final = "running"
"""Items are released at its pace."""

PAUSED: Final = "paused"
"""By a person. What was released goes on."""

STOPPED: Final = "stopped"
"""By itself: a canary, or too many of the others, failed again, or who let it run may not do so any more. A person lets
it go on or cancels it; after the last of these it goes on where it was, its canaries first."""

DONE: Final = "done"
"""Final: every item was released or skipped, and what was released has ended."""

CANCELLED: Final = "cancelled"
"""Final: what was not released stays as it was."""

ALL: Final = (COUNTING, READY, HOLDING, CANARY, RUNNING, PAUSED, STOPPED, DONE, CANCELLED)
FINAL: Final = (DONE, CANCELLED)
ACTIVE: Final = tuple(state for state in ALL if state not in FINAL)
"""Those in which it keeps its groups for itself."""

RELEASING: Final = (CANARY, RUNNING)

TRANSITIONS: Final[dict[str, frozenset[str]]] = {
    COUNTING: frozenset({READY, DONE, CANCELLED}),
    READY: frozenset({HOLDING, CANCELLED}),
    HOLDING: frozenset({CANARY, RUNNING, READY, CANCELLED}),
    CANARY: frozenset({RUNNING, STOPPED, PAUSED, DONE, CANCELLED}),
    RUNNING: frozenset({STOPPED, PAUSED, DONE, CANCELLED}),
    PAUSED: frozenset({CANARY, RUNNING, CANCELLED}),
    STOPPED: frozenset({CANARY, RUNNING, CANCELLED}),
    DONE: frozenset(),
    CANCELLED: frozenset(),
}

PENDING: Final = "pending"
"""An item that is still to be released."""

RELEASED: Final = "released"
"""Its letter was decided by this operation."""

SKIPPED: Final = "skipped"
"""Left alone; `cause` says why."""

ITEM_STATES: Final = (PENDING, RELEASED, SKIPPED)
