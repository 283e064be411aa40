"""Moves pending, retrying, waiting -> dead, for tasks whose deadline has passed."""

from django.db import connection, transaction

from apps.core import json_codec
from apps.core.errors import Timeout
from apps.tasks import fingerprint
from apps.tasks.lifecycle.finish import tell
from apps.tasks.signals import Death, Finished

BATCH = 500
MESSAGE = "The task's deadline passed before it could be done."

_EXPIRE = """
WITH late AS (
  SELECT id FROM tasks_task WHERE state IN ('pending', 'retrying', 'waiting') AND deadline < now()
  ORDER BY id LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
UPDATE tasks_task t SET state = CASE WHEN cancel_requested THEN 'cancelled' ELSE 'dead' END, finished_at = now(),
  parked_since = NULL
FROM late WHERE t.id = late.id
RETURNING t.id, t.project_id, t.api_key_id, t.kind, t.queue, t.cycle, t.attempt, t.callback_url, t.parent_id,
  t.request_id, t.state
"""


@transaction.atomic
def expire() -> int:
    """End what is too late; how many."""
    with connection.cursor() as cursor:
        cursor.execute(_EXPIRE, {"batch": BATCH})
        rows = cursor.fetchall()
        finished, deaths = [], []
        for row in rows:
            task_id, project_id, api_key_id, kind, queue, cycle, attempt, url, parent_id, request_id, state = row
            finished.append(Finished(task_id, project_id, kind, state, url, parent_id))
            if state != "dead":
                continue
            print_ = fingerprint.compute(kind=kind, upstream="", code=Timeout.code, status=None, message=MESSAGE)
            error = {
                "message": MESSAGE, "type": Timeout().type, "param": None, "code": Timeout.code,
                "request_id": request_id, "details": None,
            }  # fmt: skip
            deaths.append(Death(task_id, project_id, api_key_id, kind, queue, cycle, attempt, print_, "", error))
        if deaths:
            cursor.execute(
                "UPDATE tasks_task t SET error = f.error FROM unnest(%s::uuid[], %s::text[]) AS f(id, error) "
                "WHERE t.id = f.id",
                [[death.task_id for death in deaths], [json_codec.ascii_dumps(death.error) for death in deaths]],
            )
    tell(finished, deaths)
    return len(rows)
