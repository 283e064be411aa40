"""Bulk operations step by step, as the clock would take them, and the tasks that they put back to work."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from apps.core.errors import InvalidRequest
from apps.dead_letters.bulk import control, pacer, plan
from apps.dead_letters.models import BulkOperation, DeadLetter
from apps.tasks.lifecycle.ending import failure_of
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import Task
from tests.tasks.conftest import ending, take_all

Letters = list[DeadLetter]


def tick(operation: BulkOperation, *, seconds: float = 0.0) -> BulkOperation:
    """Let the clock look at it once, as if so much time had passed since it last released."""
    operation.refresh_from_db()
    for name in ("paced_at", "release_at"):
        if seconds and getattr(operation, name):
            age_of(operation, name, seconds)
    pacer.tick()
    operation.refresh_from_db()
    return operation


def age_of(operation: BulkOperation, name: str, seconds: float) -> None:
    """Move one of its times into the past."""
    moment = getattr(operation, name) - timedelta(seconds=seconds)
    BulkOperation.objects.filter(pk=operation.pk).update(**{name: moment})


def counted(action: str = "redrive", **what: Any) -> BulkOperation:
    """An operation that is ready."""
    return tick(plan.create(action, **what))


def begun(action: str = "redrive", *, what: dict[str, Any], **terms: Any) -> BulkOperation:
    """An operation whose hold is over."""
    operation = counted(action, **what)
    control.start(operation.pk, **terms)
    return tick(operation, seconds=11)


def end(letters: Sequence[DeadLetter], *, dead: int = 0) -> None:
    """Run the redriven tasks of these letters to their end, the first `dead` of them to another death."""
    tasks = list(Task.objects.filter(pk__in=[one.task_id for one in letters], state="pending").order_by("pk"))
    claimed = take_all(tasks)
    failure = failure_of(InvalidRequest("It does not fit."), kind=tasks[0].kind, upstream="")
    finish(
        [ending(one, "dead", "failed", charged=True, failure=failure) for one in claimed[:dead]]
        + [ending(one) for one in claimed[dead:]]
    )


def states_of(letters: Sequence[DeadLetter]) -> dict[str, int]:
    """How many of the letters are in which state."""
    found: dict[str, int] = {}
    for state in DeadLetter.objects.filter(pk__in=[one.pk for one in letters]).values_list("state", flat=True):
        found[state] = found.get(state, 0) + 1
    return found
