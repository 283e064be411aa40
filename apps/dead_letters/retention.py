"""Deletes what people have decided on long enough ago: discarded tasks with their letters, and letters left behind.

Also groups that have no letters left, and bulk operations and alerts that ended long ago. An open letter is never
touched, nor its task. A discarded child goes once its parent has ended, for that counts its children; a parent stays as
long as one of its children is dead or unfinished.
"""

from django.conf import settings
from django.db import connection, transaction

from apps.dead_letters.tallies import HOURS_KEPT
from apps.tasks import holds
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
_HOURS = """
DELETE FROM dead_letters_grouphour WHERE (group_id, hour) IN (
  SELECT group_id, hour FROM dead_letters_grouphour WHERE hour < now() - make_interval(hours => %s) LIMIT %s)
"""
_GROUPS = """
SELECT fingerprint FROM dead_letters_failuregroup g
WHERE last_seen < now() - make_interval(days => %s) AND open_count = 0
  AND NOT EXISTS (SELECT 1 FROM dead_letters_deadletter l WHERE l.group_id = g.fingerprint)
ORDER BY fingerprint LIMIT %s FOR UPDATE SKIP LOCKED
"""
_ITEMS = """
DELETE FROM dead_letters_bulkitem WHERE (operation_id, letter_id) IN (
  SELECT i.operation_id, i.letter_id FROM dead_letters_bulkitem i
  JOIN dead_letters_bulkoperation o ON o.id = i.operation_id
  WHERE o.finished_at < now() - make_interval(days => %s) LIMIT %s)
"""
_OPERATIONS = """
DELETE FROM dead_letters_bulkoperation WHERE id IN (
  SELECT id FROM dead_letters_bulkoperation o WHERE finished_at < now() - make_interval(days => %s)
    AND NOT EXISTS (SELECT 1 FROM dead_letters_bulkitem i WHERE i.operation_id = o.id) LIMIT %s)
"""
_ALERTS = """
DELETE FROM dead_letters_alert WHERE id IN (
  SELECT id FROM dead_letters_alert WHERE state = 'ended' AND ended_at < now() - make_interval(days => %s)
  ORDER BY ended_at LIMIT %s FOR UPDATE SKIP LOCKED)
"""
_DIGESTS = "DELETE FROM dead_letters_alertdigest WHERE day < CURRENT_DATE - %s::int"


@transaction.atomic
def prune_discarded() -> int:
    """Delete a batch of tasks that were discarded, with all their letters; how many tasks."""
    with connection.cursor() as cursor:
        cursor.execute(_DISCARDED, [settings.REDRIVE.task_retention_days, ROWS_AT_ONCE])
        found = [row[0] for row in cursor.fetchall()]
        # Their tasks are locked now: a letter that was restored meanwhile is seen by a new look.
        cursor.execute(
            "SELECT task_id FROM dead_letters_deadletter WHERE task_id = ANY(%s) AND state = 'open'", [found]
        )
        kept = {row[0] for row in cursor.fetchall()}
        gone = delete_families([task_id for task_id in found if task_id not in kept])
        cursor.execute("DELETE FROM dead_letters_deadletter WHERE task_id = ANY(%s) AND state <> 'open'", [gone])
    return len(gone)


@transaction.atomic
def prune_hours() -> int:
    """Delete a batch of the groups' hours that no page shows any more; how many."""
    with connection.cursor() as cursor:
        cursor.execute(_HOURS, [HOURS_KEPT, ROWS_AT_ONCE])
        return int(cursor.rowcount)


@transaction.atomic
def prune_groups() -> int:
    """Delete a batch of groups that have no letter left and have not failed for long, with whom they hit; how many."""
    with connection.cursor() as cursor:
        cursor.execute(_GROUPS, [settings.REDRIVE.task_retention_days, ROWS_AT_ONCE])
        found = [row[0] for row in cursor.fetchall()]
        # A new look: intake holds a share of a group's lock until its letters are there to be seen.
        cursor.execute(
            """
            DELETE FROM dead_letters_failuregroup g WHERE fingerprint = ANY(%s)
              AND NOT EXISTS (SELECT 1 FROM dead_letters_deadletter l WHERE l.group_id = g.fingerprint)
            RETURNING fingerprint
            """,
            [found],
        )
        gone = [row[0] for row in cursor.fetchall()]
        cursor.execute("DELETE FROM dead_letters_groupkey WHERE group_id = ANY(%s)", [gone])
    holds.forget(gone)
    return len(gone)


@transaction.atomic
def prune_operations() -> int:
    """Delete a batch of items of bulk operations that ended long ago, and those without items left; how many rows."""
    with connection.cursor() as cursor:
        cursor.execute(_ITEMS, [settings.REDRIVE.task_retention_days, ROWS_AT_ONCE])
        if cursor.rowcount:
            return int(cursor.rowcount)
        cursor.execute(_OPERATIONS, [settings.REDRIVE.task_retention_days, ROWS_AT_ONCE])
        return int(cursor.rowcount)


@transaction.atomic
def prune_letters() -> int:
    """Delete a batch of letters whose tasks went on and are gone by now; how many."""
    with connection.cursor() as cursor:
        cursor.execute(_LEFT_BEHIND, [settings.REDRIVE.task_retention_days, ROWS_AT_ONCE])
        return int(cursor.rowcount)


@transaction.atomic
def prune_alerts() -> int:
    """Delete a batch of alerts that ended long ago, and old digests; how many rows."""
    with connection.cursor() as cursor:
        cursor.execute(_ALERTS, [settings.REDRIVE.task_retention_days, ROWS_AT_ONCE])
        count = int(cursor.rowcount)
        cursor.execute(_DIGESTS, [settings.REDRIVE.task_retention_days])
        return count + int(cursor.rowcount)
