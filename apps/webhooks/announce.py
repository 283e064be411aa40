"""Receives the tasks that end, and in that same transaction fixes what their callback URLs are told.

An event's bytes and id are written once; each try sends the same. A receiver that raises would undo the end of the
task, so whatever a task's texts hold, there is an event: what cannot be shown is left out.
"""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

import structlog
from django.db import Error, connection

from apps.core import ids, json_codec
from apps.tasks import enqueue, kinds, queries, states
from apps.tasks.models import Task
from apps.tasks.schemas import unix
from apps.tasks.signals import Finished
from apps.webhooks import delivery, disabled
from apps.webhooks import queries as webhook_queries
from apps.webhooks.models import WebhookEvent

log = structlog.get_logger(__name__)

LARGEST = 256 * 1024  # bytes of a body; a larger one is sent without the task's result
AT_ONCE = 100  # events of one INSERT, which holds their bodies
TYPES = {
    states.SUCCEEDED: WebhookEvent.Type.SUCCEEDED,
    states.DEAD: WebhookEvent.Type.DEAD,
    states.CANCELLED: WebhookEvent.Type.CANCELLED,
}
Json = dict[str, Any]

_EVENTS = """
INSERT INTO webhooks_webhookevent (id, project_id, task_id, cycle, type, url, body, delivery_id, held, created_at)
SELECT *, now() FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::int[], %s::text[], %s::text[], %s::text[],
  %s::uuid[], %s::bool[])
ON CONFLICT DO NOTHING RETURNING delivery_id
"""


def receive(tasks: list[Finished], **_: Any) -> None:
    """Receiver of tasks_finished: an event each for those with a callback URL, and a task that delivers it."""
    told = [one.task_id for one in tasks if one.callback_url and one.parent_id is None and _announces(one.kind)]
    for start in range(0, len(told), AT_ONCE):
        _announce(told[start : start + AT_ONCE])


def _announces(kind: str) -> bool:
    known = kinds.registered(kind)
    return known is None or known.announce


def _announce(task_ids: Collection[UUID]) -> None:
    tasks = list(Task.objects.filter(pk__in=task_ids).order_by("pk"))
    closed = disabled.among([(task.project_id, task.callback_url) for task in tasks])
    statuses = _statuses(tasks)
    rows: list[tuple[Any, ...]] = []
    for task, status in zip(tasks, statuses, strict=True):
        event_id, held = ids.new_uuid(), (task.project_id, task.callback_url) in closed
        rows.append(
            (event_id, task.project_id, task.pk, task.cycle, TYPES[task.state], task.callback_url,
             _body(event_id, task, status), None if held else ids.new_uuid(), held)
        )  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(_EVENTS, [list(column) for column in zip(*rows, strict=True)])
        made = {row[0] for row in cursor.fetchall()}
    request_ids = {task.pk: task.request_id for task in tasks}
    enqueue.accept_now(
        [
            delivery.task(row[1], event_id=row[0], request_id=request_ids[row[2]], task_id=row[7])
            for row in rows
            if row[7] in made and row[7] is not None
        ]
    )


def _statuses(tasks: Sequence[Task]) -> list[Json]:
    try:
        return queries.render(tasks, largest=queries.LARGEST_TOLD)
    except Error:
        raise  # Postgres': the transaction is lost in any case
    except Exception as error:
        if len(tasks) > 1:
            return [status for task in tasks for status in _statuses([task])]
        log.error("webhook_body_cut", task=tasks[0].pk.hex, exc_info=error)
        return [_bare(tasks[0])]


def _bare(task: Task) -> Json:
    """Without what the task's own texts hold."""
    return {
        **queries.accepted(task.pk, task.kind, task.priority, task.created_at),
        "status": states.shown(task.state),
        "started_at": unix(task.started_at),
        "finished_at": unix(task.finished_at),
        **queries.OMITTED,
    }


def _body(event_id: UUID, task: Task, status: Json) -> str:
    event = {
        "id": webhook_queries.shown_id(event_id),
        "object": "event",
        "type": TYPES[task.state].value,
        "created_at": unix(task.finished_at),
        "data": status,
    }
    try:
        body = json_codec.ascii_dumps(event)
    except (TypeError, ValueError, RecursionError) as error:
        log.error("webhook_body_cut", task=task.pk.hex, exc_info=error)
        return json_codec.ascii_dumps({**event, "data": _bare(task)})
    if len(body) <= LARGEST:
        return body
    return json_codec.ascii_dumps({**event, "data": {**status, **queries.OMITTED}})
