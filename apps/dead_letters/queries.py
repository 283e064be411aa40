"""Reads letters for the apps below and the ways in."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from apps.dead_letters.models import DeadLetter
from apps.tasks import states as task_states
from apps.tasks.models import Task
from apps.tasks.verify import Invariant

ONE_LETTER_OF_EACH_DEATH = Invariant(
    "I5",
    "a task is dead exactly if there is a letter of its cycle that was not redriven",
    """
    SELECT t.id::text FROM tasks_task t LEFT JOIN dead_letters_deadletter l
      ON l.task_id = t.id AND l.cycle = t.cycle AND l.state <> 'redriven'
    WHERE (t.state = 'dead') <> (l.id IS NOT NULL)
    """,
)

REDRIVES_ARE_AUDITED = Invariant(
    "I7",
    "a dead task goes on only by a redrive that the audit knows: each earlier cycle has its letter and an entry",
    """
    SELECT t.id::text FROM tasks_task t CROSS JOIN LATERAL generate_series(1, t.cycle - 1) AS earlier(cycle)
    WHERE t.cycle > 1 AND NOT EXISTS (
      SELECT 1 FROM dead_letters_deadletter l JOIN access_auditentry a
        ON a.object_type = 'dead_letters.deadletter' AND a.object_id = l.id::text AND a.action = 'redrive'
      WHERE l.task_id = t.id AND l.cycle = earlier.cycle AND l.state = 'redriven')
    UNION
    SELECT l.task_id::text FROM dead_letters_deadletter l JOIN tasks_task t ON t.id = l.task_id
    WHERE l.state = 'redriven' AND t.cycle <= l.cycle
    """,
)


def of_tasks(tasks: Sequence[Task]) -> dict[UUID, Any]:
    """The part `dead_letter` of the tasks' status bodies: {id, state} of the last letter."""
    died = [task.pk for task in tasks if task.state == task_states.DEAD or task.cycle > 1]
    if not died:
        return {}
    rows = DeadLetter.objects.filter(task_id__in=died).order_by("cycle").values_list("task_id", "id", "state")
    return {task_id: {"id": f"letter_{letter_id.hex}", "state": state} for task_id, letter_id, state in rows}


def count_open(*, cap: int) -> tuple[int, datetime | None]:
    """How many letters wait for a person (counting ends at cap), and since when the oldest does."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT count(*), min(created_at)
            FROM (SELECT created_at FROM dead_letters_deadletter WHERE state = 'open' ORDER BY created_at LIMIT %s) o
            """,
            [cap],
        )
        count, oldest = cursor.fetchone()
        return int(count), oldest
