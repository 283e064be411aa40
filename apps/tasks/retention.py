"""Deletes tasks that ended long enough ago, with their payloads, attempts and results; children go with their parent.

Dead tasks are not touched here: each has a letter, and what becomes of it is for people to decide. The app of the
letters deletes those that were discarded, by `delete_families`. A parent stays as long as one of its children is dead
or unfinished.
"""

from uuid import UUID

from django.conf import settings
from django.db import connection, transaction

ROWS_AT_ONCE = 1_000
FORGOTTEN = 86_400.0  # seconds after which the row of a worker is deleted where no clock has reaped it

_OLD = """
SELECT id FROM tasks_task t
WHERE state IN ('succeeded', 'dead', 'cancelled') AND finished_at < now() - make_interval(days => %s)
  AND state <> 'dead' AND parent_id IS NULL
  AND NOT EXISTS (SELECT 1 FROM tasks_task c WHERE c.parent_id = t.id AND c.state NOT IN ('succeeded', 'cancelled'))
ORDER BY finished_at LIMIT %s FOR UPDATE SKIP LOCKED
"""
_CHILDREN = """
SELECT id FROM tasks_task WHERE parent_id = ANY(%s) ORDER BY id LIMIT %s FOR UPDATE
"""


@transaction.atomic
def prune_tasks() -> int:
    """Delete a batch of final tasks, those that ended first; how many tasks. Of a large family children go first."""
    with connection.cursor() as cursor:
        cursor.execute(_OLD, [settings.REDRIVE.task_retention_days, ROWS_AT_ONCE])
        roots = [row[0] for row in cursor.fetchall()]
    return len(delete_families(roots))


def delete_families(roots: list[UUID]) -> list[UUID]:
    """Delete a batch of tasks that the caller has locked, and their children; which are gone.

    Of a large family a batch of children goes first; then the roots stay for the next time.
    """
    if not roots:
        return []
    with connection.cursor() as cursor:
        cursor.execute(_CHILDREN, [roots, ROWS_AT_ONCE])
        children = [row[0] for row in cursor.fetchall()]
    gone = children if len(children) == ROWS_AT_ONCE else children + roots
    _delete(gone)
    return gone


@transaction.atomic
def prune_workers() -> int:
    """Delete workers that have been silent for a day; how many."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM tasks_workerpresence WHERE expires_at < now() - make_interval(secs => %s)", [FORGOTTEN]
        )
        return int(cursor.rowcount)


def _delete(task_ids: list[UUID]) -> None:
    with connection.cursor() as cursor:
        for table, column in (
            ("tasks_taskpayload", "task_id"),
            ("tasks_taskresult", "task_id"),
            ("tasks_taskattempt", "task_id"),
            ("tasks_task", "id"),
        ):
            cursor.execute(f"DELETE FROM {table} WHERE {column} = ANY(%s)", [task_ids])  # noqa: S608 (names above)
