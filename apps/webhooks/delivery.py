"""The kind `webhook_delivery`: one attempt sends an event's bytes, signed anew, to its URL.

2xx is success. 410 disables the URL and ends the delivery. Everything else, whatever the receiver or its name server
says, is tried again after the delays of the policy; after the last one the delivery is a dead letter.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import structlog
from pydantic import BaseModel

from apps.core import json_codec
from apps.core.database import LOST_CONNECTION, in_db
from apps.core.errors import ServiceUnavailable
from apps.core.outbound import AddressRefused, OutboundFailed, outbound
from apps.tasks import states
from apps.tasks.attempt import Run
from apps.tasks.enqueue import NewTask
from apps.tasks.kinds import DAY, Kind, Policy
from apps.webhooks import disabled, log, queries, signing
from apps.webhooks.errors import DeliveryFailed, EventNotFound
from apps.webhooks.models import WebhookAttempt
from apps.webhooks.queries import Due

logger = structlog.get_logger(__name__)
P = ParamSpec("P")
R = TypeVar("R")

MINUTE, HOUR = 60.0, 3600.0
DELAYS = (5.0, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR)
GONE = 410


class Delivery(BaseModel):
    """What to deliver."""

    event_id: UUID


async def deliver(run: Run, args: Delivery) -> dict[str, Any]:
    """One attempt. Raises DeliveryFailed; EventNotFound where retention has deleted the event."""
    due = await _ask(queries.due, args.event_id)
    if due is None:
        raise EventNotFound()
    if due.disabled:
        return {"status": "url_disabled", "event_id": queries.shown_id(args.event_id)}
    attempt = WebhookAttempt(
        event_id=args.event_id, project_id=run.task.project_id, task_id=due.task_id, delivery_id=run.task.id,
        number=run.task.attempt, type=due.type, url=due.url,
    )  # fmt: skip
    began = time.monotonic()
    await _call(due, attempt, {"x-request-id": run.task.request_id} if run.task.request_id else {})
    attempt.duration_ms = round((time.monotonic() - began) * 1000)
    if attempt.status_code == GONE:
        await _ask(disabled.disable, run.task.project_id, due.url)
    await log.write(attempt)
    status = {"status": "delivered", "status_code": attempt.status_code, "event_id": queries.shown_id(args.event_id)}
    if attempt.status_code in log.SUCCESS:
        return status
    if attempt.status_code == GONE:
        return {**status, "status": "url_disabled"}
    raise DeliveryFailed(f"{due.host}: {attempt.message}.", answered=attempt.status_code)


async def _ask(verb: Callable[P, R], /, *args: P.args, **options: P.kwargs) -> R:
    """The door to Postgres, with failures that end no delivery: it is parked, or tried again."""
    try:
        return await in_db(verb, *args, **options)
    except LOST_CONNECTION:
        raise ServiceUnavailable("Postgres cannot be reached.", retry_after=5) from None
    except Exception as error:
        logger.error("webhook_not_sent", exc_info=error)
        raise DeliveryFailed("It could not be sent.") from error


async def _call(due: Due, attempt: WebhookAttempt, more: Mapping[str, str]) -> None:
    """Send it, and note in the attempt what came of it. Raises nothing but a cancel."""
    try:
        keys = due.keys()
        if not keys:
            attempt.error, attempt.message = "no_secret", "the project has no webhook secret to sign with"
            return
        body = due.body.encode()
        headers = {
            "content-type": "application/json",
            "user-agent": "Redrive-Webhooks/1",
            **more,
            **signing.headers(queries.shown_id(attempt.event_id), body, at=due.now, keys=keys),
        }
        answer = await outbound().post(due.url, body=body, headers=headers)
    except AddressRefused as refused:
        attempt.error, attempt.message = "address_refused", str(refused).rstrip(".")
    except OutboundFailed as failed:
        attempt.error, attempt.message = failed.kind, str(failed)
    except Exception as error:  # ours; the receiver shall still get it when it is mended
        logger.error("webhook_not_sent", exc_info=error)
        attempt.error, attempt.message = "internal", type(error).__name__
    else:
        attempt.status_code, attempt.response = answer.status, answer.text
        if answer.status not in log.SUCCESS:
            is_redirect = 300 <= answer.status < 400
            attempt.error = "redirect" if is_redirect else "gone" if answer.status == GONE else "http_status"
            attempt.message = f"it answered {answer.status}" + (", which is not followed" if is_redirect else "")


KIND = Kind(
    "webhook_delivery",
    Delivery,
    deliver,
    queue=states.WEBHOOKS,
    policy=Policy(delays=DELAYS, park_limit=7 * DAY),
    limit=120.0,  # far above what a call may take: a delivery must never die of it
    deadline=None,
    announce=False,
)


def task(project_id: UUID, *, event_id: UUID, request_id: str, task_id: UUID) -> NewTask:
    """The task that delivers an event."""
    return NewTask(
        project_id=project_id,
        kind=KIND,
        args=json_codec.ascii_dumps({"event_id": str(event_id)}),
        queue=states.WEBHOOKS,
        request_id=request_id,
        id=task_id,
    )
