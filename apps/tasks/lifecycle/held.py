"""Moves retrying -> dead, for tasks whose last failure an operator holds: what waits for a retry is not to have one."""

from typing import NamedTuple
from uuid import UUID

from django.db import connection, transaction

from apps.core import json_codec
from apps.core.errors import TYPE_BY_STATUS
from apps.tasks import states
from apps.tasks.lifecycle.ending import Failure
from apps.tasks.lifecycle.finish import tell
from apps.tasks.models import RetryHold
from apps.tasks.signals import Death, Finished

BATCH = 500

_HELD = """
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
RETURNING t.id, t.project_id, t.api_key_id, t.kind, t.queue, t.cycle, t.attempt, t.callback_url, t.parent_id,
  t.request_id, held.error_code, held.error_status, held.error_message, held.fingerprint, held.upstream
"""
_ERROR = """
UPDATE tasks_task t SET error = f.error FROM unnest(%s::uuid[], %s::text[]) AS f(id, error) WHERE t.id = f.id
"""


class _Row(NamedTuple):
    id: UUID
    project_id: UUID
    api_key_id: UUID | None
    kind: str
    queue: str
    cycle: int
    attempt: int
    callback_url: str
    parent_id: UUID | None
    request_id: str
    code: str
    status: int | None
    message: str
    fingerprint: str
    upstream: str


@transaction.atomic
def end_held() -> int:
    """End what waits for a retry that is held, with its last failure; how many."""
    if not RetryHold.objects.exists():
        return 0
    with connection.cursor() as cursor:
        cursor.execute(_HELD, [BATCH])
        rows = [_Row(*row) for row in cursor.fetchall()]
        deaths = [_death(row) for row in rows]
        errors = [json_codec.ascii_dumps(death.error) for death in deaths]
        cursor.execute(_ERROR, [[row.id for row in rows], errors])
    finished = [
        Finished(row.id, row.project_id, row.kind, states.DEAD, row.callback_url, row.parent_id, row.cycle)
        for row in rows
    ]
    tell(finished, deaths)
    return len(rows)


def _death(row: _Row) -> Death:
    status = row.status or 500
    kind = TYPE_BY_STATUS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    failure = Failure(row.code, row.status, row.message, type=kind)
    return Death(
        task_id=row.id,
        project_id=row.project_id,
        api_key_id=row.api_key_id,
        kind=row.kind,
        queue=row.queue,
        cycle=row.cycle,
        attempt=row.attempt,
        fingerprint=row.fingerprint,
        upstream=row.upstream,
        error=failure.inner(row.request_id),
        status=row.status,
    )
