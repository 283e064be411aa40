"""Accepts tasks: a group commit for those of clients, and a plain insert for those made within a transaction.

A task is accepted when its row is committed, and only then. An Idempotency-Key's record is written in the same
transaction, so that fifty equal requests at once make one task.
"""

import asyncio
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction

from apps.access import idempotency
from apps.access.idempotency import Claim
from apps.core import failpoints, ids
from apps.core.database import Batch
from apps.core.errors import ServiceUnavailable
from apps.tasks import doorbell, states
from apps.tasks.kinds import Kind

BACKLOG = 10_000
UNSURE = (
    "The database does not answer. The task may yet be accepted: send it again with the same Idempotency-Key, or look "
    "for it in the list of tasks."
)


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task to accept. args: JSON text of the kind's arguments. deadline, delay: seconds from now."""

    project_id: UUID
    kind: Kind
    args: str
    api_key_id: UUID | None = None
    priority: str = states.DEFAULT
    queue: str = ""
    request_id: str = ""
    end_user: str = ""
    callback_url: str = ""
    metadata: str = ""
    deadline: float | None = None
    delay: float = 0.0
    parent_id: UUID | None = None
    item_index: int | None = None
    claim: Claim | None = None
    id: UUID = field(default_factory=ids.new_uuid)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A committed task. replayed: it was accepted before, by the same Idempotency-Key."""

    task_id: UUID
    kind: str
    priority: str
    created_at: datetime
    replayed: bool = False


async def accept(task: NewTask) -> Accepted:
    """Commit a task. Raises IdempotencyKeyReused, and ServiceUnavailable while too many, or it, wait for Postgres."""
    if _batch().is_full():
        raise ServiceUnavailable("Work cannot be accepted right now.", retry_after=5)
    try:
        async with asyncio.timeout(settings.REDRIVE.database_timeout * 2):
            accepted = await asyncio.shield(_batch().submit(task))
    except TimeoutError:
        raise ServiceUnavailable(UNSURE, retry_after=5) from None
    if isinstance(accepted, Exception):
        raise accepted
    return accepted


def accept_now(tasks: Sequence[NewTask]) -> None:
    """Insert tasks in the caller's transaction; their queues are rung when it commits."""
    insert(tasks)
    ring_after_commit(task.queue or task.priority for task in tasks)


def ring_after_commit(queues: Iterable[str]) -> None:
    """Tell workers of due work, once it is committed."""
    found = frozenset(queues)
    transaction.on_commit(functools.partial(_ring, found))


def _ring(queues: frozenset[str]) -> None:
    failpoints.hit("enqueue.after_commit")
    doorbell.ring(queues)


@functools.cache
def _batch() -> "Batch[NewTask, Accepted | Exception]":
    return Batch(_write, name="enqueue", backlog=BACKLOG, size=lambda task: len(task.args))


def _write(tasks: list[NewTask]) -> list[Accepted | Exception]:
    with transaction.atomic():
        refused, earlier = _settle_claims(tasks)
        fresh = [task for index, task in enumerate(tasks) if index not in refused and index not in earlier]
        created = insert(fresh) if fresh else None
        known = _read(set(earlier.values())) if earlier else {}
        ring_after_commit(task.queue or task.priority for task in fresh)
        failpoints.hit("enqueue.before_commit")
    results: list[Accepted | Exception] = []
    for index, task in enumerate(tasks):
        if index in refused:
            results.append(refused[index])
        elif index in earlier:
            results.append(known.get(earlier[index]) or ServiceUnavailable("The earlier request has gone."))
        else:
            assert created is not None
            results.append(Accepted(task.id, task.kind.name, task.priority, created))
    return results


def _settle_claims(tasks: list[NewTask]) -> tuple[dict[int, Exception], dict[int, UUID]]:
    """Of the tasks with an Idempotency-Key: those to refuse, and those that exist already, by their index."""
    claims = [(index, task.claim, task.id) for index, task in enumerate(tasks) if task.claim is not None]
    refused: dict[int, Exception] = {}
    earlier: dict[int, UUID] = {}
    if claims:
        outcomes = idempotency.claim_for_tasks([(claim, task_id) for _, claim, task_id in claims])
        for (index, _, task_id), outcome in zip(claims, outcomes, strict=True):
            if isinstance(outcome, Exception):
                refused[index] = outcome
            elif outcome != task_id:
                earlier[index] = outcome
    return refused, earlier


_COLUMNS: tuple[tuple[str, str, Callable[[NewTask], Any]], ...] = (
    ("id", "uuid", lambda task: task.id),
    ("project_id", "uuid", lambda task: task.project_id),
    ("api_key_id", "uuid", lambda task: task.api_key_id),
    ("request_id", "text", lambda task: task.request_id),
    ("end_user", "text", lambda task: task.end_user),
    ("kind", "text", lambda task: task.kind.name),
    ("schema_version", "int", lambda task: task.kind.version),
    ("priority", "text", lambda task: task.priority),
    ("queue", "text", lambda task: task.queue or task.priority),
    ("callback_url", "text", lambda task: task.callback_url),
    ("metadata", "text", lambda task: task.metadata),
    ("parent_id", "uuid", lambda task: task.parent_id),
    ("item_index", "int", lambda task: task.item_index),
    ("delay", "float8", lambda task: task.delay),
    ("deadline", "float8", lambda task: task.deadline),
    ("args", "text", lambda task: task.args),
)
_GIVEN = ", ".join(name for name, _, _ in _COLUMNS)
_PLAIN = ", ".join(name for name, _, _ in _COLUMNS[:13])
_INSERT = f"""
WITH given AS (SELECT * FROM unnest({", ".join(f"%s::{kind}[]" for _, kind, _ in _COLUMNS)}) AS given({_GIVEN})),
made AS (
  INSERT INTO tasks_task ({_PLAIN}, state, next_attempt_at, deadline, allowed, created_at, cancel_requested, attempt,
    cycle, charged_failures, worker_losses, progress, error)
  SELECT {_PLAIN}, 'pending', now() + make_interval(secs => delay), now() + make_interval(secs => deadline),
    deadline, now(),
    false, 0, 1, 0, 0, '', ''
  FROM given ON CONFLICT (id) DO NOTHING RETURNING id),
paid AS (
  INSERT INTO tasks_taskpayload (task_id, revision, body, created_at)
  SELECT id, 1, args, now() FROM given JOIN made USING (id))
SELECT now()
"""  # noqa: S608 (made of the names above)


def insert(tasks: Sequence[NewTask]) -> datetime:
    """Insert tasks with their payloads in one statement; the database's time of it.

    Those that are there already stay: a commit whose answer was lost is done again.
    """
    with connection.cursor() as cursor:
        cursor.execute(_INSERT, [[value(task) for task in tasks] for _, _, value in _COLUMNS])
        created: datetime = cursor.fetchone()[0]
    return created


def _read(task_ids: set[UUID]) -> dict[UUID, Accepted]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, kind, priority, created_at FROM tasks_task WHERE id = ANY(%s)", [list(task_ids)])
        return {row[0]: Accepted(row[0], row[1], row[2], row[3], replayed=True) for row in cursor.fetchall()}
