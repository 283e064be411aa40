"""A worker's view of its leases: what it holds by the database, what to cancel, what to hand back."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction

UNKNOWN_FOR = 3.0  # TTLs after which a running row that its worker does not know is handed back

_HAND_BACK = """
WITH mine AS (
  SELECT id, token, worker, attempt, cycle, attempt_started_at FROM tasks_task
  WHERE worker = %(worker)s AND state = 'running' AND NOT id = ANY(%(known)s)
    AND attempt_started_at < now() - make_interval(secs => %(age)s)
  ORDER BY id FOR UPDATE),
 moved AS (
  UPDATE tasks_task t SET state = 'retrying', token = NULL, worker = NULL, run_until = NULL, next_attempt_at = now()
  FROM mine WHERE t.id = mine.id RETURNING mine.*)
INSERT INTO tasks_taskattempt (task_id, number, cycle, token, worker, started_at, finished_at, outcome, charged,
  error_code, error_message, fingerprint, traceback, upstream, input_tokens, output_tokens, cost_nusd)
SELECT id, attempt, cycle, token, worker, attempt_started_at, now(), 'handed_back', false, '', '', '', '', '', 0, 0, 0
FROM moved RETURNING task_id
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
        cursor.execute(_HAND_BACK, {"worker": worker, "known": list(known), "age": age})
        return len(cursor.fetchall())
