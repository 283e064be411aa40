"""News for the apps above: sent by `lifecycle` alone, once per batch, inside the transaction that made it so.

Receivers write in bulk on the same connection. One that raises undoes the move: without its letter no task is dead.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.dispatch import Signal

tasks_finished = Signal()
"""tasks: list[Finished]; succeeded, dead and cancelled ones."""

tasks_died = Signal()
"""deaths: list[Death]."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A task that has become final. cycle: 1, and one more with each redrive."""

    task_id: UUID
    project_id: UUID
    kind: str
    state: str
    callback_url: str
    parent_id: UUID | None
    cycle: int


@dataclass(frozen=True, slots=True)
class Death:
    """A task that has failed for good; `error` is its inner error object, `status` the provider's or our own."""

    task_id: UUID
    project_id: UUID
    api_key_id: UUID | None
    kind: str
    queue: str
    cycle: int
    attempt: int
    fingerprint: str
    upstream: str
    error: dict[str, Any]
    status: int | None = None
