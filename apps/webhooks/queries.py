"""Reads webhooks: what is to be sent now, the tries of a task's project, and whether every end was told."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from django.db import connection

from apps.core import crypto
from apps.core.errors import InvalidRequest
from apps.tasks.errors import TaskNotFound
from apps.tasks.models import Task
from apps.tasks.models import shown_id as shown_task_id
from apps.tasks.schemas import unix
from apps.tasks.verify import Invariant
from apps.webhooks.models import WebhookAttempt

EVENT, ATTEMPT = "evt_", "whd_"
Json = dict[str, Any]

EVERY_END_IS_TOLD = Invariant(
    "I8",
    "each end of a task with a callback URL has an event, and that a delivery (unfinished, succeeded, dead with its "
    "letter by I5, or called off by a person) or a URL that is disabled",
    """
    SELECT t.id::text FROM tasks_task t
    WHERE t.callback_url <> '' AND t.parent_id IS NULL AND t.state IN ('succeeded', 'dead', 'cancelled')
      AND t.finished_at > now() - interval '7 days'
      AND NOT EXISTS (SELECT 1 FROM webhooks_webhookevent e WHERE e.task_id = t.id AND e.cycle = t.cycle)
    UNION ALL
    SELECT e.id::text FROM webhooks_webhookevent e LEFT JOIN tasks_task d ON d.id = e.delivery_id
    WHERE d.id IS NULL AND NOT e.held AND e.delivered_at IS NULL AND e.created_at > now() - interval '1 day'
    """,
)


@dataclass(frozen=True, slots=True)
class Due:
    """An event about to be sent. now: Postgres' unix seconds, so that a host's wrong clock spoils no signature."""

    task_id: UUID
    type: str
    url: str
    body: str
    now: int
    stored_keys: tuple[str, ...]
    disabled: bool

    def keys(self) -> list[str]:
        """What to sign with, the newest first. Raises crypto.UndecipherableError."""
        return [crypto.decrypt(token) for token in self.stored_keys]

    @property
    def host(self) -> str:
        """Of the URL, which may hold secrets elsewhere."""
        return urlsplit(self.url).hostname or ""


def due(event_id: UUID) -> Due | None:
    """What to send, with the secrets in force now."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT e.task_id, e.type, e.url, e.body, extract(epoch FROM now())::bigint, s.secret,
              CASE WHEN s.previous_expires_at > now() THEN s.previous END,
              EXISTS (SELECT 1 FROM webhooks_disabledurl d WHERE d.project_id = e.project_id AND d.url = e.url)
            FROM webhooks_webhookevent e LEFT JOIN webhooks_webhooksecret s ON s.project_id = e.project_id
            WHERE e.id = %s
            """,
            [event_id],
        )
        row = cursor.fetchone()
    if row is None:
        return None
    task_id, type_, url, body, now, secret, previous, disabled = row
    return Due(task_id, type_, url, body, now, tuple(filter(None, (secret, previous))), disabled)


def shown_id(event_id: UUID) -> str:
    """`evt_...`"""
    return f"{EVENT}{event_id.hex}"


def parse_id(text: str, prefix: str, *, param: str) -> UUID:
    """The id of `evt_...` or `whd_...`. Raises InvalidRequest."""
    try:
        if text.startswith(prefix) and len(text) == len(prefix) + 32:
            return UUID(text.removeprefix(prefix))
    except ValueError:
        pass
    raise InvalidRequest(f"It is an id: {prefix}...", param=param)


def page(project_id: UUID, task_id: UUID, *, after: UUID | None, limit: int) -> Json:
    """The tries to tell of a task, newest first. Raises TaskNotFound."""
    if not Task.objects.filter(pk=task_id, project_id=project_id).exists():
        raise TaskNotFound()
    rows = WebhookAttempt.objects.filter(task_id=task_id).order_by("-id")
    if after is not None:
        rows = rows.filter(pk__lt=after)
    found = list(rows[: limit + 1])
    shown = [_attempt(row) for row in found[:limit]]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(found) > limit,
    }


def _attempt(row: WebhookAttempt) -> Json:
    return {
        "id": f"{ATTEMPT}{row.pk.hex}",
        "object": "webhook_delivery",
        "task_id": shown_task_id(row.task_id),
        "event_id": shown_id(row.event_id),
        "event_type": row.type,
        "attempt": row.number,
        "url": row.url,
        "created_at": unix(row.created_at),
        "duration_ms": row.duration_ms,
        "status_code": row.status_code,
        "response": row.response if row.status_code is not None else None,
        "error": {"code": row.error, "message": row.message} if row.error else None,
    }
