"""A worker's view of its leases: what it holds by the database, what to cancel, what to hand back, how far it is."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction

from apps.tasks import states
from apps.tasks.lifecycle.ending import Ending
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import TaskAttempt
from apps.tasks.retry_policy import Decision

Outcome = TaskAttempt.Outcome
UNKNOWN_FOR = 3.0  # TTLs after which a running row that its worker does not know is handed back

_UNKNOWN = """
SELECT id, kind, token, attempt, cycle, worker, request_id, attempt_started_at FROM tasks_task
WHERE worker = %(worker)s AND state = 'running' AND NOT id = ANY(%(known)s)
  AND attempt_started_at < now() - make_interval(secs => %(age)s)
"""


@dataclass(frozen=True, slots=True)
class Held:
    """A running task by the database."""

    token: int
    cancel_requested: bool


def held(worker: UUID) -> dict[UUID, Held]:
    """What the worker holds."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, token, cancel_requested FROM tasks_task WHERE worker = %s AND state = 'running'", [worker]
        )
        return {row[0]: Held(row[1], row[2]) for row in cursor.fetchall()}


@transaction.atomic
def hand_back(worker: UUID, *, known: Collection[UUID], age: float | None = None) -> int:
    """Give back the rows that the worker does not know (a claim whose answer was lost); how many."""
    age = UNKNOWN_FOR * settings.REDRIVE.worker_ttl if age is None else age
    with connection.cursor() as cursor:
        cursor.execute(_UNKNOWN, {"worker": worker, "known": list(known), "age": age})
        names = ("task_id", "kind", "token", "number", "cycle", "worker", "request_id", "started_at")
        endings = [
            Ending(**dict(zip(names, row, strict=True)), decision=Decision(states.RETRYING, Outcome.HANDED_BACK))
            for row in cursor.fetchall()
        ]
    return sum(state is not None for state in finish(endings)) if endings else 0


def write_progress(told: Sequence[tuple[UUID, int, str]]) -> None:
    """Write the progress, JSON text, of attempts by task and token; one that lost its lease changes nothing."""
    ordered = sorted(told)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE tasks_task t SET progress = f.progress
            FROM unnest(%s::uuid[], %s::bigint[], %s::text[]) AS f(id, token, progress)
            WHERE t.id = f.id AND t.state = 'running' AND t.token = f.token
            """,
            [list(column) for column in zip(*ordered, strict=True)],
        )
