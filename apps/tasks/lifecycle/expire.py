"""Moves pending, retrying, waiting -> dead, for tasks whose deadline has passed."""

from django.db import connection, transaction

from apps.core import json_codec
from apps.core.errors import Timeout
from apps.tasks import states
from apps.tasks.lifecycle.ending import failure_of
from apps.tasks.lifecycle.finish import tell
from apps.tasks.signals import Death, Finished

BATCH = 500
MESSAGE = "The task's deadline passed before it could be done."

_EXPIRE = """
WITH late AS (
  SELECT id FROM tasks_task WHERE state IN ('pending', 'retrying', 'waiting') AND deadline < now()
  ORDER BY id LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
UPDATE tasks_task t SET state = 'dead', finished_at = now(), parked_since = NULL
FROM late WHERE t.id = late.id
RETURNING t.id, t.project_id, t.api_key_id, t.kind, t.queue, t.cycle, t.attempt, t.callback_url, t.parent_id,
  t.request_id
"""
_ERROR = """
UPDATE tasks_task t SET error = f.error FROM unnest(%s::uuid[], %s::text[]) AS f(id, error) WHERE t.id = f.id
"""


@transaction.atomic
def expire() -> int:
    """End what is too late; how many."""
    with connection.cursor() as cursor:
        cursor.execute(_EXPIRE, {"batch": BATCH})
        finished, deaths = [], []
        for row in cursor.fetchall():
            task_id, project_id, api_key_id, kind, queue, cycle, attempt, url, parent_id, request_id = row
            failure = failure_of(Timeout(MESSAGE), kind=kind, upstream="")
            finished.append(Finished(task_id, project_id, kind, states.DEAD, url, parent_id, cycle))
            deaths.append(
                Death(
                    task_id=task_id,
                    project_id=project_id,
                    api_key_id=api_key_id,
                    kind=kind,
                    queue=queue,
                    cycle=cycle,
                    attempt=attempt,
                    fingerprint=failure.fingerprint,
                    upstream="",
                    error=failure.inner(request_id),
                    status=failure.status,
                )
            )
        errors = [json_codec.ascii_dumps(death.error) for death in deaths]
        cursor.execute(_ERROR, [[death.task_id for death in deaths], errors])
    tell(finished, deaths)
    return len(deaths)
