"""Moves retrying -> dead, for tasks whose last failure an operator holds: what waits for a retry is not to have one."""

from typing import Any

from django.db import connection, transaction

from apps.core.errors import type_of
from apps.tasks.lifecycle.ending import Failure
from apps.tasks.lifecycle.unattended import BATCH, RETURNING, Dying, tell_deaths
from apps.tasks.models import RetryHold

_HELD = f"""
WITH held AS (
  -- From the few that are retrying to their last attempts: there is no index on the attempts' fingerprints.
  SELECT t.id, a.error_code, a.error_status, a.error_message, a.fingerprint, a.upstream
  FROM tasks_task t JOIN LATERAL (
    SELECT * FROM tasks_taskattempt a WHERE a.task_id = t.id AND a.number = t.attempt) a ON true
  JOIN tasks_retryhold h ON h.fingerprint = a.fingerprint
  WHERE t.state = 'retrying' AND a.outcome <> 'parked'  -- which waits for a door, not for a retry
  ORDER BY t.id LIMIT %s FOR UPDATE OF t SKIP LOCKED)
UPDATE tasks_task t SET state = 'dead', finished_at = now(), parked_since = NULL
FROM held WHERE t.id = held.id AND t.state = 'retrying'
RETURNING {RETURNING},
  held.error_code, held.error_status, held.error_message, held.fingerprint, held.upstream
"""  # noqa: S608 (columns named in the code)
_OWN = len(Dying._fields)


@transaction.atomic
def end_held() -> int:
    """End what waits for a retry that is held, with its last failure; how many."""
    if not RetryHold.objects.exists():
        return 0
    with connection.cursor() as cursor:
        cursor.execute(_HELD, [BATCH])
        rows = cursor.fetchall()
    tell_deaths([(Dying(*row[:_OWN]), *_failure(*row[_OWN:])) for row in rows])
    return len(rows)


def _failure(code: str, status: int | None, message: str, fingerprint: str, upstream: str) -> tuple[Failure, Any]:
    """The last attempt's failure, which is now the task's, and its upstream."""
    return Failure(code, status, message, type=type_of(status or 500), fingerprint=fingerprint), upstream
