"""The moves of letters, many at once: each is one conditional UPDATE that says which letters it won.

Tasks are locked before their letters, by ascending id: that is the order in which all lock. Nothing is checked here
but the states; who may, and why, is for `triage` and `bulk`, which alone call these.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from apps.access import audit
from apps.core import failpoints
from apps.dead_letters import states
from apps.dead_letters.models import DeadLetter
from apps.tasks.lifecycle.revive import revive

_LOCK = "SELECT id FROM tasks_task WHERE id = ANY(%s) ORDER BY id FOR UPDATE"
_MOVE = """
WITH chosen AS (
  SELECT l.id FROM dead_letters_deadletter l
  WHERE l.id = ANY(%(ids)s) AND l.state = %(source)s AND (NOT %(needs_task)s OR EXISTS (
    SELECT 1 FROM tasks_task t WHERE t.id = l.task_id AND t.state = 'dead' AND t.cycle = l.cycle))
  ORDER BY l.id FOR UPDATE OF l)
UPDATE dead_letters_deadletter l SET state = %(target)s,
  decided_at = CASE WHEN %(target)s <> 'open' THEN now() END, decided_by = %(by)s, reason = %(reason)s,
  discard_code = %(code)s, operation_id = %(operation)s
FROM chosen WHERE l.id = chosen.id AND l.state = %(source)s RETURNING l.id
"""


@transaction.atomic
def redrive(letter_ids: Sequence[UUID], *, actor: Any, reason: str, operation_id: UUID | None = None) -> set[UUID]:
    """Put the tasks of open letters back to work; the letters that this call won."""
    _lock_tasks(letter_ids)
    moved = _move(letter_ids, states.OPEN, states.REDRIVEN, actor, reason, operation_id=operation_id, needs_task=True)
    failpoints.hit("redrive.before_revive")
    task_ids = {letter.task_id for letter in moved}
    assert revive(sorted(task_ids)) == task_ids, "locked, dead and of that cycle"
    audit.record_each("redrive", moved, actor=actor, reason=reason, **_change(states.OPEN, states.REDRIVEN))
    return {letter.pk for letter in moved}


@transaction.atomic
def discard(
    letter_ids: Sequence[UUID], *, actor: Any, reason: str, code: str, operation_id: UUID | None = None
) -> set[UUID]:
    """Decide that the tasks of open letters will not run again; the letters that this call won."""
    moved = _move(letter_ids, states.OPEN, states.DISCARDED, actor, reason, code=code, operation_id=operation_id)
    audit.record_each("discard", moved, actor=actor, reason=reason, **_change(states.OPEN, states.DISCARDED))
    return {letter.pk for letter in moved}


@transaction.atomic
def restore(letter_ids: Sequence[UUID], *, actor: Any, reason: str, operation_id: UUID | None = None) -> set[UUID]:
    """Open discarded letters again; those that this call won. One whose task is gone is not among them."""
    _lock_tasks(letter_ids)
    moved = _move(letter_ids, states.DISCARDED, states.OPEN, actor, "", operation_id=operation_id, needs_task=True)
    audit.record_each("restore", moved, actor=actor, reason=reason, **_change(states.DISCARDED, states.OPEN))
    return {letter.pk for letter in moved}


def _lock_tasks(letter_ids: Sequence[UUID]) -> None:
    tasks = DeadLetter.objects.filter(pk__in=letter_ids).values_list("task_id", flat=True)
    with connection.cursor() as cursor:
        cursor.execute(_LOCK, [sorted(tasks)])


def _move(
    letter_ids: Sequence[UUID],
    source: str,
    target: str,
    actor: Any,
    reason: str,
    *,
    code: str = "",
    operation_id: UUID | None = None,
    needs_task: bool = False,
) -> list[DeadLetter]:
    assert target in states.TRANSITIONS[source], (source, target)
    by = "" if target == states.OPEN else audit.name_of(actor)
    values = {
        "ids": list(letter_ids), "source": source, "target": target, "by": by, "reason": reason, "code": code,
        "operation": operation_id, "needs_task": needs_task,
    }  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(_MOVE, values)
        won = [row[0] for row in cursor.fetchall()]
    return list(DeadLetter.objects.filter(pk__in=won).order_by("pk"))


def _change(source: str, target: str) -> dict[str, dict[str, str]]:
    return {"before": {"state": source}, "after": {"state": target}}
