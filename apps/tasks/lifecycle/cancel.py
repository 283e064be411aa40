"""Cancels tasks: at once where none runs, by a flag where a worker holds it."""

from dataclasses import dataclass
from uuid import UUID

from django.db import connection, transaction

from apps.tasks import states
from apps.tasks.errors import TaskIsFinal, TaskNotFound
from apps.tasks.lifecycle.finish import tell
from apps.tasks.signals import Finished

_CANCEL = """
WITH family AS (
  SELECT id FROM tasks_task WHERE (id = %(id)s OR parent_id = %(id)s) AND state IN
    ('pending', 'retrying', 'waiting', 'running') ORDER BY id FOR UPDATE)
UPDATE tasks_task t SET cancel_requested = true,
  state = CASE WHEN t.state = 'running' THEN 'running' ELSE 'cancelled' END,
  finished_at = CASE WHEN t.state = 'running' THEN NULL ELSE now() END, parked_since = NULL
FROM family WHERE t.id = family.id
RETURNING t.id, t.project_id, t.kind, t.state, t.callback_url, t.parent_id, t.cycle
"""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """state: cancelled, or running where the worker is still to be told."""

    state: str


@transaction.atomic
def cancel(task_id: UUID, *, project_id: UUID | None = None) -> Cancelled:
    """Cancel a task and its unfinished children; of a project, or (None) for operators.

    Cancelling twice is no error. Raises TaskNotFound, TaskIsFinal.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT project_id, state FROM tasks_task WHERE id = %s FOR UPDATE", [task_id])
        row = cursor.fetchone()
        if row is None or (project_id is not None and row[0] != project_id):
            raise TaskNotFound()
        if row[1] == states.CANCELLED:
            return Cancelled(states.CANCELLED)
        if row[1] in states.FINAL:
            raise TaskIsFinal(f"The task has ended already: {row[1]}.")
        cursor.execute(_CANCEL, {"id": task_id})
        moved = {row[0]: Finished(*row) for row in cursor.fetchall()}
    tell([task for task in moved.values() if task.state == states.CANCELLED], [])
    return Cancelled(moved[task_id].state)
