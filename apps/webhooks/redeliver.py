"""Sends an event again: the same id and bytes, by a delivery of its own with all its delays before it."""

import contextlib
from uuid import UUID

from django.db import transaction

from apps.access import idempotency
from apps.access.idempotency import Claim
from apps.core import ids
from apps.tasks import enqueue, states
from apps.tasks.errors import TaskIsFinal, TaskNotFound
from apps.tasks.lifecycle.cancel import cancel
from apps.tasks.models import Task
from apps.webhooks import delivery
from apps.webhooks.errors import EventNotFound, NoSecret, UrlIsDisabled
from apps.webhooks.models import DisabledUrl, WebhookEvent, WebhookSecret

ON_ITS_WAY = (states.PENDING, states.RUNNING)


@transaction.atomic
def redeliver_of_task(
    project_id: UUID, task_id: UUID, *, event_id: UUID | None = None, claim: Claim | None = None
) -> WebhookEvent:
    """Send again a task's last event, or the one named. Raises TaskNotFound, EventNotFound, and as `redeliver`."""
    if not Task.objects.filter(pk=task_id, project_id=project_id).exists():
        raise TaskNotFound()
    events = WebhookEvent.objects.filter(task_id=task_id)
    if event_id is not None:
        events = events.filter(pk=event_id)
    event = events.order_by("-cycle").defer("body").first()
    if event is None:
        raise EventNotFound("Nothing was to be told of this task: it has no callback_url, or has not ended.")
    return redeliver(event.pk, claim=claim)


@transaction.atomic
def redeliver(event_id: UUID, *, claim: Claim | None = None) -> WebhookEvent:
    """Send an event again; its row, whose `delivery_id` is the task that does it.

    One that is on its way stays the only one; one that waits for its next try is replaced. Raises EventNotFound,
    NoSecret, UrlIsDisabled, IdempotencyKeyReused.
    """
    event = WebhookEvent.objects.select_for_update().filter(pk=event_id).defer("body").first()
    if event is None:
        raise EventNotFound()
    if DisabledUrl.objects.filter(project=event.project_id, url=event.url).exists():
        raise UrlIsDisabled()
    if not WebhookSecret.objects.filter(project=event.project_id).exists():
        raise NoSecret()
    now = Task.objects.filter(pk=event.delivery_id).first() if event.delivery_id else None
    if now is not None and now.state in ON_ITS_WAY:
        return event
    new_id = ids.new_uuid()
    if claim is not None:
        [outcome] = idempotency.claim_for_tasks([(claim, new_id)])
        if isinstance(outcome, Exception):
            raise outcome
        if outcome != new_id:
            return event
    if now is not None and now.state in states.UNFINISHED:
        with contextlib.suppress(TaskIsFinal):  # it ended just now
            cancel(now.pk)
    request_id = Task.objects.filter(pk=event.task_id).values_list("request_id", flat=True).first() or ""
    enqueue.accept_now([delivery.task(event.project_id, event_id=event.pk, request_id=request_id, task_id=new_id)])
    WebhookEvent.objects.filter(pk=event.pk).update(delivery_id=new_id, held=False)
    event.delivery_id, event.held = new_id, False
    return event
