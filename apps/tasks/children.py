"""Splits a task into children: a handler has them all done, then puts their results together.

    async def handle(run: Run, args: Texts) -> dict:
        await children.all_done(run, "embed_batch", batches_of(args))      # leaves the handler until all have ended
        return {"parts": [child.result async for child in children.ended(run)]}

The handler is called again from its beginning each time; what it gives to `all_done` must be the same each time. A
parent that waits holds no slot. Children wait in the queue `low`, at most LIMIT of them are unfinished at once.
"""

import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from apps.core import json_codec
from apps.core.database import in_db
from apps.tasks import kinds, states
from apps.tasks.attempt import Run, Wait
from apps.tasks.enqueue import NewTask, accept_now
from apps.tasks.models import Task, TaskResult

LIMIT = 1000
PAGE = 200
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Child:
    """A child that has ended. error: the inner error object of a dead one."""

    item_index: int
    state: str
    result: Json | None
    error: Json | None


async def all_done(run: Run, kind: str, items: Sequence[Json]) -> None:
    """Return once there was a child of this kind for each of the items, its arguments, and all have ended.

    Raises Wait until then: let it pass.
    """
    if not await in_db(_top_up, run, kinds.find(kind), items):
        raise Wait


async def ended(run: Run) -> AsyncGenerator[Child, None]:
    """The children in the order of their items."""
    after = -1
    while page := await in_db(_page, run.task.id, after):
        for child in page:
            yield child
        after = page[-1].item_index


@transaction.atomic
def _top_up(run: Run, kind: kinds.Kind, items: Sequence[Json]) -> bool:
    with connection.cursor() as cursor:
        # Its own row is held meanwhile: an attempt that has lost its lease makes no children.
        cursor.execute(
            "UPDATE tasks_task SET children_total = %s WHERE id = %s AND state = 'running' AND token = %s "
            "RETURNING project_id, api_key_id, request_id, end_user, extract(epoch FROM deadline - now())::float8",
            [len(items), run.task.id, run.task.token],
        )
        parent = cursor.fetchone()
        if parent is None:
            return False
        cursor.execute(
            "SELECT coalesce(max(item_index) + 1, 0), count(*) FILTER (WHERE finished_at IS NULL) FROM tasks_task "
            "WHERE parent_id = %s",
            [run.task.id],
        )
        made, unfinished = cursor.fetchone()
    project_id, api_key_id, request_id, end_user, seconds_left = parent
    fresh = [
        NewTask(
            project_id=project_id,
            api_key_id=api_key_id,
            kind=kind,
            args=json_codec.ascii_dumps(items[index]),
            priority=states.LOW,
            request_id=request_id,
            end_user=end_user,
            deadline=seconds_left,
            parent_id=run.task.id,
            item_index=index,
        )
        for index in range(made, min(len(items), made + LIMIT - unfinished))
    ]
    if fresh:
        accept_now(fresh)
    return made == len(items) and not unfinished


def _page(parent_id: UUID, after: int) -> list[Child]:
    rows = list(Task.objects.filter(parent_id=parent_id, item_index__gt=after).order_by("item_index")[:PAGE])
    results = dict(TaskResult.objects.filter(pk__in=[row.pk for row in rows]).values_list("pk", "body"))
    return [
        Child(
            item_index=row.item_index or 0,
            state=row.state,
            result=json.loads(results[row.pk]) if row.pk in results else None,
            error=json.loads(row.error) if row.error else None,
        )
        for row in rows
    ]
