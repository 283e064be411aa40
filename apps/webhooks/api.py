"""The routes of webhooks, below those of their task. Thin: parse, one verb, render."""

from typing import Annotated, Any

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from apps.access import idempotency
from apps.access.way_in import caller_of
from apps.core import json_codec
from apps.core.database import in_db
from apps.tasks.models import shown_id
from apps.tasks.queries import task_id
from apps.webhooks import queries
from apps.webhooks.redeliver import redeliver_of_task
from apps.webhooks.schemas import RedeliverBody, Redelivered, WebhookDeliveryList

router = Router(tags=["Webhooks"])


@router.get("/{task}/webhook_deliveries", response=WebhookDeliveryList, operation_id="list_webhook_deliveries")
async def list_webhook_deliveries(
    request: HttpRequest, task: str, limit: Annotated[int, Query(ge=1, le=100)] = 20, after: str = ""
) -> HttpResponse:
    """The tries to tell the task's callback URL of its end, newest first."""
    cursor = queries.parse_id(after, queries.ATTEMPT, param="after") if after else None
    project_id = caller_of(request).project_id
    return _json(await in_db(queries.page, project_id, task_id(task), after=cursor, limit=limit))


@router.post("/{task}/webhook_deliveries/redeliver", response={202: Redelivered}, operation_id="redeliver_webhook")
async def redeliver_webhook(request: HttpRequest, task: str, payload: RedeliverBody | None = None) -> HttpResponse:
    """Send the task's event again, with the same id and body. One that is on its way is not doubled."""
    named = payload.event_id if payload else None
    event_id = queries.parse_id(named, queries.EVENT, param="event_id") if named is not None else None
    project_id = caller_of(request).project_id
    header = request.META.get("HTTP_IDEMPOTENCY_KEY")
    claim = idempotency.claim(project_id, "webhook_redeliver", header, request.path.encode() + request.body)
    event = await in_db(redeliver_of_task, project_id, task_id(task), event_id=event_id, claim=claim)
    shown = {
        "object": "webhook_event",
        "id": queries.shown_id(event.pk),
        "type": event.type,
        "task_id": shown_id(event.task_id),
        "delivery_task_id": shown_id(event.delivery_id) if event.delivery_id else None,
    }
    return _json(shown, status=202)


def _json(value: dict[str, Any], status: int = 200) -> HttpResponse:
    return HttpResponse(json_codec.dumps(value), status=status, content_type="application/json")
