"""Keeps each try to deliver, by group commit; that it cannot be written is no reason to fail a delivery."""

import asyncio
import functools

import structlog
from django.db import transaction
from django.db.models.functions import Now

from apps.core.database import Batch
from apps.webhooks.models import WebhookAttempt, WebhookEvent

log = structlog.get_logger(__name__)

PATIENCE = 5.0  # seconds; the row is written later, if Postgres comes back later
SUCCESS = range(200, 300)


async def write(attempt: WebhookAttempt) -> None:
    """Keep a try, and note with its event that it was delivered. Raises nothing."""
    try:
        async with asyncio.timeout(PATIENCE):
            await asyncio.shield(_batch().submit(attempt))
    except Exception as error:
        log.warning("webhook_attempt_not_logged", event=attempt.event_id.hex, error=type(error).__name__)


@functools.cache
def _batch() -> "Batch[WebhookAttempt, None]":
    return Batch(_write, name="webhook_log")


@transaction.atomic
def _write(attempts: list[WebhookAttempt]) -> list[None]:
    WebhookAttempt.objects.bulk_create(attempts)
    told = [attempt.event_id for attempt in attempts if attempt.status_code in SUCCESS]
    if told:
        WebhookEvent.objects.filter(pk__in=told, delivered_at__isnull=True).update(delivered_at=Now())
    return [None] * len(attempts)
