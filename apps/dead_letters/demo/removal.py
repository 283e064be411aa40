"""Removes the demo: all rows of its project, and what others' rows tell of them. Only the audit remembers.

Groups that only the demo filled go; of those that it shares, its part is taken away.
"""

import threading
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db import connection, models, transaction

from apps.access import audit
from apps.access.models import ApiKey, Project
from apps.core import clock
from apps.core.errors import Conflict
from apps.dead_letters import bulk_states, tallies
from apps.dead_letters.models import Alert, BulkItem, BulkOperation, BulkSlot, DeadLetter
from apps.tasks import states
from apps.tasks.errors import TaskIsFinal, TaskNotFound
from apps.tasks.lifecycle.cancel import cancel
from apps.tasks.models import Task
from apps.tasks.retention import ROWS_AT_ONCE, delete_families

PATIENCE = 15.0  # seconds for attempts that run to be told, and to end
STILL_AT_WORK = "Some of its tasks are at work. Try again in a moment."

_LOCK_GROUPS = """
SELECT fingerprint FROM dead_letters_failuregroup WHERE fingerprint IN (
  SELECT group_id FROM dead_letters_groupkey WHERE project_id = %(project)s
  UNION SELECT group_id FROM dead_letters_deadletter WHERE project_id = %(project)s)
ORDER BY fingerprint FOR UPDATE
"""
_HOURS = """
UPDATE dead_letters_grouphour h SET died = h.died - l.died FROM (
  SELECT group_id, date_trunc('hour', created_at) AS hour, count(*) AS died FROM dead_letters_deadletter
  WHERE project_id = %(project)s GROUP BY 1, 2) l
WHERE h.group_id = l.group_id AND h.hour = l.hour
"""
_COUNTS = """
UPDATE dead_letters_failuregroup g SET
  died_count = g.died_count - coalesce(k.died, 0), key_count = g.key_count - coalesce(k.keys, 0),
  open_count = g.open_count - l.opened, redriven_count = g.redriven_count - l.redriven,
  succeeded_count = g.succeeded_count - l.succeeded, failed_count = g.failed_count - l.failed,
  cancelled_count = g.cancelled_count - l.cancelled, discarded_count = g.discarded_count - l.discarded,
  last_seen = coalesce((SELECT max(last_seen) FROM dead_letters_groupkey o
                        WHERE o.group_id = g.fingerprint AND o.project_id <> %(project)s), g.last_seen)
FROM (
  SELECT group_id, count(*) FILTER (WHERE state = 'open') AS opened,
    count(*) FILTER (WHERE state = 'redriven') AS redriven, count(*) FILTER (WHERE outcome = 'succeeded') AS succeeded,
    count(*) FILTER (WHERE outcome = 'dead') AS failed, count(*) FILTER (WHERE outcome = 'cancelled') AS cancelled,
    count(*) FILTER (WHERE state = 'discarded') AS discarded
  FROM dead_letters_deadletter WHERE project_id = %(project)s GROUP BY group_id) l
LEFT JOIN (
  SELECT group_id, sum(died) AS died, count(*) FILTER (WHERE api_key_id <> %(no_key)s::uuid) AS keys
  FROM dead_letters_groupkey WHERE project_id = %(project)s GROUP BY group_id) k ON k.group_id = l.group_id
WHERE g.fingerprint = l.group_id
"""
_EMPTY_GROUPS = """
DELETE FROM dead_letters_failuregroup g WHERE g.fingerprint = ANY(%(groups)s)
  AND NOT EXISTS (SELECT 1 FROM dead_letters_deadletter l WHERE l.group_id = g.fingerprint) RETURNING g.fingerprint
"""
# Of an operation that has also worked on others' letters, the counts of what is left.
_RECOUNT = """
UPDATE dead_letters_bulkoperation o SET total = i.total, skipped = i.skipped, released = i.released,
  succeeded = i.succeeded, failed = i.failed, cancelled = i.cancelled
FROM (
  SELECT operation_id, count(*) AS total, count(*) FILTER (WHERE state = 'skipped') AS skipped,
    count(*) FILTER (WHERE state = 'released') AS released, count(*) FILTER (WHERE outcome = 'succeeded') AS succeeded,
    count(*) FILTER (WHERE outcome = 'dead') AS failed, count(*) FILTER (WHERE outcome = 'cancelled') AS cancelled
  FROM dead_letters_bulkitem WHERE operation_id = ANY(%s) GROUP BY operation_id) i
WHERE o.id = i.operation_id
"""
OF_GROUPS = (
    ("dead_letters_grouphour", "group_id"),
    ("dead_letters_groupkey", "group_id"),
    ("dead_letters_grouptally", "group_id"),
    ("dead_letters_bulkslot", "group_id"),
    ("tasks_retryhold", "fingerprint"),
)


@dataclass(frozen=True, slots=True)
class Removed:
    """How much is gone."""

    tasks: int
    letters: int
    groups: int


def remove(project: Project, *, patience: float = PATIENCE) -> Removed:
    """Delete the project and all that belongs to it. Raises Conflict where some of it stays at work."""
    _call_off(project.pk, patience)
    with transaction.atomic():
        clock.keep_off("bulk")
        clock.keep_off("letters")
        while tallies.fold():
            pass
        found = list(Task.objects.select_for_update().filter(project=project).order_by("pk").only("pk", "state"))
        if any(task.state in states.UNFINISHED for task in found):
            raise Conflict(STILL_AT_WORK)
        operations = _operations([task.pk for task in found])
        values: dict[str, Any] = {"project": project.pk, "no_key": tallies.NO_KEY}
        with connection.cursor() as cursor:
            cursor.execute(_LOCK_GROUPS, values)
            groups = [row[0] for row in cursor.fetchall()]
            cursor.execute(_HOURS, values)
            cursor.execute("DELETE FROM dead_letters_grouphour WHERE group_id = ANY(%s) AND died <= 0", [groups])
            cursor.execute(_COUNTS, values)
        letters, _ = DeadLetter.objects.filter(project=project).delete()
        gone = _delete_groups(groups)
        _delete_operations(operations, gone)
        _delete_tasks(project.pk)
        _delete_project(project)
        audit.record("remove", project, reason="the demo")
    return Removed(len(found), letters, len(gone))


def _call_off(project_id: UUID, patience: float) -> None:
    """Cancel what is not finished, and wait for what runs."""
    until = time.monotonic() + patience
    unfinished = Task.objects.filter(project_id=project_id, state__in=states.UNFINISHED)
    while found := list(unfinished.values_list("pk", flat=True)):
        for task_id in found:
            try:
                cancel(task_id)
            except (TaskIsFinal, TaskNotFound):
                continue
        if not unfinished.exists():
            return
        if time.monotonic() > until:
            raise Conflict(STILL_AT_WORK)
        threading.Event().wait(0.2)


def _operations(task_ids: list[UUID]) -> list[UUID]:
    """The bulk operations about these tasks, locked. Raises Conflict where an active one is about others' too."""
    about = BulkItem.objects.filter(task_id__in=task_ids).values_list("operation_id", flat=True).distinct()
    found = list(BulkOperation.objects.select_for_update().filter(pk__in=list(about)).order_by("pk"))
    for operation in found:
        others = BulkItem.objects.filter(operation_id=operation.pk).exclude(task_id__in=task_ids)
        if operation.state in bulk_states.ACTIVE and others.exists():
            raise Conflict(f"The bulk operation {operation.pk.hex} is about others' letters too: cancel it first.")
    BulkItem.objects.filter(task_id__in=task_ids).delete()
    return [operation.pk for operation in found]


def _delete_operations(touched: list[UUID], groups: list[str]) -> None:
    kept = set(BulkItem.objects.filter(operation_id__in=touched).values_list("operation_id", flat=True).distinct())
    ended = [one for one in touched if one not in kept]
    BulkSlot.objects.filter(operation_id__in=ended).delete()
    BulkOperation.objects.filter(pk__in=ended).delete()
    # Also those that were made for its groups alone, and had no letters.
    BulkOperation.objects.filter(total=0, groups__len__gt=0, groups__contained_by=groups).delete()
    with connection.cursor() as cursor:
        cursor.execute(_RECOUNT, [sorted(kept)])


def _delete_groups(groups: list[str]) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(_EMPTY_GROUPS, {"groups": groups})
        gone = [row[0] for row in cursor.fetchall()]
        for table, column in OF_GROUPS:
            cursor.execute(f"DELETE FROM {table} WHERE {column} = ANY(%s)", [gone])  # noqa: S608 (names above)
    Alert.objects.filter(subject__in=gone).delete()
    return gone


def _delete_tasks(project_id: UUID) -> None:
    while found := list(Task.objects.filter(project_id=project_id).order_by("pk")[:ROWS_AT_ONCE].values_list("pk")):
        delete_families([pk for (pk,) in found])


def _delete_project(project: Project) -> None:
    """Whatever else names the project, in any app: ledger, idempotency, webhooks; then its keys, and itself."""
    for model in apps.get_models():
        columns = {field.column for field in model._meta.concrete_fields}
        if "project_id" in columns and model is not ApiKey and model.__module__.startswith("apps."):
            _rows(model).filter(project_id=project.pk).delete()
    ApiKey.objects.filter(project=project).delete()
    Project.objects.filter(pk=project.pk).delete()


def _rows(model: Any) -> "models.QuerySet[Any]":
    return model._base_manager.all()  # type: ignore[no-any-return]
