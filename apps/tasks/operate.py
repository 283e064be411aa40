"""What operators do to one task, by whichever way in: cancel it, look at its texts. Permitted and audited here.

actor: a Django user, or None for the command line.
"""

from typing import Any
from uuid import UUID

from django.db import transaction

from apps.access import audit
from apps.access.permissions import require
from apps.core import json_codec
from apps.tasks import payloads
from apps.tasks.errors import TaskNotFound
from apps.tasks.lifecycle.cancel import Cancelled
from apps.tasks.lifecycle.cancel import cancel as _cancel
from apps.tasks.models import Task, TaskResult

MAY_CANCEL = "tasks.cancel_task"
MAY_REVEAL = "tasks.reveal_payload"


@transaction.atomic
def cancel(task_id: UUID, *, actor: Any = None, reason: str = "") -> Cancelled:
    """Cancel any project's task. Cancelling twice is no error. Raises TaskNotFound, TaskIsFinal, PermissionDenied."""
    require(actor, MAY_CANCEL)
    task = _find(task_id)
    cancelled = _cancel(task_id)
    audit.record(
        "cancel",
        task,
        actor=actor,
        reason=reason,
        before={"state": task.state, "cancel_requested": task.cancel_requested},
        after={"state": cancelled.state, "cancel_requested": True},
    )
    return cancelled


@transaction.atomic
def reveal(task_id: UUID, *, actor: Any = None, reason: str = "") -> dict[str, str]:
    """The texts of a task by name, readable: its payload, result and callback URL, and what edits have changed.

    Raises TaskNotFound, PermissionDenied. Each look is kept in the audit, in the transaction that reads the texts.
    """
    require(actor, MAY_REVEAL)
    task = _find(task_id)
    audit.record("reveal", task, actor=actor, reason=reason)
    revisions = payloads.revisions(task_id)
    result = TaskResult.objects.filter(pk=task_id).first()
    return {
        "payload": json_codec.readable(revisions[-1].body) if revisions else "",
        "result": json_codec.readable(result.body) if result else "",
        "callback_url": task.callback_url,
        "changes": payloads.differences(revisions),
    }


def _find(task_id: UUID) -> Task:
    task = Task.objects.filter(pk=task_id).first()
    if task is None:
        raise TaskNotFound()
    return task
