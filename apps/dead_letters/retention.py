"""Deletes what people have decided on long enough ago: discarded tasks with their letters, and letters left behind.

An open letter is never touched, nor its task. A discarded child goes once its parent has ended, for that counts its
children; a parent stays as long as one of its children is dead or unfinished.
"""

from django.conf import settings
from django.db import connection, transaction

from apps.tasks.retention import ROWS_AT_ONCE, delete_families

_DISCARDED = """
SELECT t.id FROM dead_letters_deadletter l JOIN tasks_task t ON t.id = l.task_id AND t.cycle = l.cycle
WHERE l.state = 'discarded' AND l.decided_at < now() - make_interval(days => %s) AND t.state = 'dead'
  AND NOT EXISTS (SELECT 1 FROM tasks_task c WHERE c.parent_id = t.id AND c.state NOT IN ('succeeded', 'cancelled'))
  AND NOT EXISTS (SELECT 1 FROM tasks_task p WHERE p.id = t.parent_id AND p.finished_at IS NULL)
ORDER BY l.decided_at LIMIT %s FOR UPDATE OF t SKIP LOCKED
"""
_LEFT_BEHIND = """
DELETE FROM dead_letters_deadletter WHERE id IN (
  SELECT l.id FROM dead_letters_deadletter l
  WHERE l.state <> 'open' AND l.decided_at < now() - make_interval(days => %s)
    AND NOT EXISTS (SELECT 1 FROM tasks_task t WHERE t.id = l.task_id)
  ORDER BY l.decided_at LIMIT %s FOR UPDATE SKIP LOCKED)
"""


@transaction.atomic
def prune_discarded() -> int:
    """Delete a batch of tasks that were discarded, with all their letters; how many tasks."""
    with connection.cursor() as cursor:
        cursor.execute(_DISCARDED, [settings.REDRIVE.task_retention_days, ROWS_AT_ONCE])
        gone = delete_families([row[0] for row in cursor.fetchall()])
        cursor.execute("DELETE FROM dead_letters_deadletter WHERE task_id = ANY(%s) AND state <> 'open'", [gone])
    return len(gone)


@transaction.atomic
def prune_letters() -> int:
    """Delete a batch of letters whose tasks went on and are gone by now; how many."""
    with connection.cursor() as cursor:
        cursor.execute(_LEFT_BEHIND, [settings.REDRIVE.task_retention_days, ROWS_AT_ONCE])
        return int(cursor.rowcount)
