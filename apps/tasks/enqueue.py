"""Accepts tasks: a group commit for those of clients, and a plain insert for those made within a transaction.

A task is accepted when its row is committed, and only then. An Idempotency-Key's record is written in the same
transaction, so that fifty equal requests at once make one task.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, connection, transaction

from apps.access import idempotency
from apps.access.idempotency import Claim
from apps.core import failpoints, ids
from apps.core.database import Batch, copy_rows
from apps.core.errors import ServiceUnavailable
from apps.tasks import doorbell, states
from apps.tasks.kinds import Kind
from apps.tasks.models import Task, TaskPayload

BACKLOG = 10_000
UNSURE = (
    "The database does not answer. The task may yet be accepted: send it again with the same Idempotency-Key, or look "
    "for it in the list of tasks."
)
WRITERS = 2  # transactions under way at a time: one is made while the other waits for the disk


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
    batch = min(_batches(), key=len)
    if batch.is_full():
        raise ServiceUnavailable("Work cannot be accepted right now.", retry_after=5)
    try:
        accepted = await batch.submit(task)
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
def _batches() -> "tuple[Batch[NewTask, Accepted | Exception], ...]":
    return tuple(
        Batch(
            _write,
            name=f"enqueue-{number}",
            backlog=BACKLOG // WRITERS,
            size=lambda task: len(task.args),
            patience=settings.REDRIVE.database_timeout * 2,
        )
        for number in range(WRITERS)
    )


def _write(tasks: list[NewTask]) -> list[Accepted | Exception]:
    try:
        return _accept_all(tasks, there={})
    except IntegrityError:
        # A commit whose answer was lost is done again: those that it made are there already.
        there = _read({task.id for task in tasks})
        if not there:
            raise
        return _accept_all(tasks, there=there)


def _accept_all(tasks: list[NewTask], *, there: dict[UUID, Accepted]) -> list[Accepted | Exception]:
    with transaction.atomic():
        refused, earlier = _settle_claims(tasks)
        fresh = [
            task
            for index, task in enumerate(tasks)
            if index not in refused and index not in earlier and task.id not in there
        ]
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
        elif task.id in there:
            results.append(replace(there[task.id], replayed=False))
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


_TASK = (
    "id", "project_id", "api_key_id", "request_id", "end_user", "kind", "schema_version", "priority", "queue",
    "callback_url", "metadata", "parent_id", "item_index", "next_attempt_at", "deadline", "allowed", "created_at",
    "state", "cancel_requested", "attempt", "cycle", "charged_failures", "worker_losses", "progress", "error",
)  # fmt: skip
_PAYLOAD = ("task_id", "revision", "body", "created_at")


@transaction.atomic(savepoint=False)
def insert(tasks: Sequence[NewTask]) -> datetime:
    """Insert tasks with their payloads, in the caller's transaction if there is one; the database's time of it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        now: datetime = cursor.fetchone()[0]
    copy_rows(Task._meta.db_table, _TASK, [_row(task, now) for task in tasks])
    copy_rows(TaskPayload._meta.db_table, _PAYLOAD, [(task.id, 1, task.args, now) for task in tasks])
    return now


def _row(task: NewTask, now: datetime) -> tuple[Any, ...]:
    return (
        task.id, task.project_id, task.api_key_id, task.request_id, task.end_user, task.kind.name, task.kind.version,
        task.priority, task.queue or task.priority, task.callback_url, task.metadata, task.parent_id, task.item_index,
        now + timedelta(seconds=task.delay) if task.delay else now,
        None if task.deadline is None else now + timedelta(seconds=task.deadline), task.deadline, now, states.PENDING,
        False, 0, 1, 0, 0, "", "",
    )  # fmt: skip


def _read(task_ids: set[UUID]) -> dict[UUID, Accepted]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, kind, priority, created_at FROM tasks_task WHERE id = ANY(%s)", [list(task_ids)])
        return {row[0]: Accepted(row[0], row[1], row[2], row[3], replayed=True) for row in cursor.fetchall()}
