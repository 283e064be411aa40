"""Moves pending, retrying, waiting -> dead, for tasks whose deadline has passed."""

from django.db import connection, transaction

from apps.core.errors import Timeout
from apps.tasks.lifecycle.ending import failure_of
from apps.tasks.lifecycle.unattended import BATCH, RETURNING, Dying, tell_deaths

MESSAGE = "The task's deadline passed before it could be done."

_EXPIRE = f"""
WITH late AS (
  SELECT id FROM tasks_task WHERE state IN ('pending', 'retrying', 'waiting') AND deadline < now()
  ORDER BY id LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
UPDATE tasks_task t SET state = 'dead', finished_at = now(), parked_since = NULL
FROM late WHERE t.id = late.id
RETURNING {RETURNING}
"""  # noqa: S608 (columns named in the code)


@transaction.atomic
def expire() -> int:
    """End what is too late; how many."""
    with connection.cursor() as cursor:
        cursor.execute(_EXPIRE, {"batch": BATCH})
        late = [Dying(*row) for row in cursor.fetchall()]
    tell_deaths([(task, failure_of(Timeout(MESSAGE), kind=task.kind, upstream=""), "") for task in late])
    return len(late)
