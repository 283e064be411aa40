"""Moves waiting -> pending for parents that have something to do, and ends children of cancelled parents."""

import json
from typing import NamedTuple
from uuid import UUID

from django.db import connection, transaction

from apps.core import json_codec
from apps.tasks.enqueue import ring_after_commit
from apps.tasks.lifecycle.finish import tell
from apps.tasks.signals import Finished

BATCH = 500
ROOM = 500
"""Unfinished children at which a parent is woken to make more."""

_COUNT = """
SELECT p.id, p.queue, p.children_total, p.progress,
  (SELECT coalesce(max(item_index) + 1, 0) FROM tasks_task c WHERE c.parent_id = p.id) AS made,
  (SELECT count(*) FROM tasks_task c WHERE c.parent_id = p.id AND c.finished_at IS NULL) AS unfinished
FROM tasks_task p WHERE p.state = 'waiting' ORDER BY p.id FOR UPDATE SKIP LOCKED
"""
_MOVE = """
WITH f AS (SELECT * FROM unnest(%s::uuid[], %s::bool[], %s::text[]) AS f(id, due, progress))
UPDATE tasks_task t SET progress = f.progress,
  state = CASE WHEN f.due THEN 'pending' ELSE t.state END,
  next_attempt_at = CASE WHEN f.due THEN now() ELSE t.next_attempt_at END
FROM f WHERE t.id = f.id AND t.state = 'waiting' AND (f.due OR t.progress <> f.progress)
"""
_ORPHANS = """
WITH orphans AS (
  SELECT c.id FROM tasks_task c JOIN tasks_task p ON p.id = c.parent_id
  WHERE c.parent_id IS NOT NULL AND c.finished_at IS NULL AND NOT c.cancel_requested AND c.cycle = 1
    AND p.state = 'cancelled'
  ORDER BY c.id LIMIT %s FOR UPDATE OF c SKIP LOCKED)
UPDATE tasks_task t SET cancel_requested = true,
  state = CASE WHEN t.state = 'running' THEN 'running' ELSE 'cancelled' END,
  finished_at = CASE WHEN t.state = 'running' THEN NULL ELSE now() END, parked_since = NULL
FROM orphans WHERE t.id = orphans.id
RETURNING t.id, t.project_id, t.kind, t.state, t.callback_url, t.parent_id, t.cycle
"""


class _Parent(NamedTuple):
    id: UUID
    queue: str
    total: int | None
    told: str
    made: int
    unfinished: int

    def is_due(self) -> bool:
        return not self.unfinished or (self.made < (self.total or 0) and self.unfinished <= ROOM)

    def progress(self) -> str:
        status = json.loads(self.told).get("status", "") if self.told else ""  # what the handler told stays
        return json_codec.ascii_dumps({"current": self.made - self.unfinished, "total": self.total, "status": status})


@transaction.atomic
def wake() -> int:
    """Count the children of waiting parents, and wake those with all ended or room for more; how many."""
    with connection.cursor() as cursor:
        cursor.execute(_COUNT)
        parents = [_Parent(*row) for row in cursor.fetchall()]
        if parents:
            moves = [(parent.id, parent.is_due(), parent.progress()) for parent in parents]
            cursor.execute(_MOVE, [list(column) for column in zip(*moves, strict=True)])
    due = [parent.queue for parent in parents if parent.is_due()]
    ring_after_commit(due)
    return len(due)


@transaction.atomic
def cancel_orphans() -> int:
    """Cancel the children that a parent still made while it was being cancelled; how many."""
    with connection.cursor() as cursor:
        cursor.execute(_ORPHANS, [BATCH])
        moved = [Finished(*row) for row in cursor.fetchall()]
    tell([task for task in moved if task.state == "cancelled"], [])
    return len(moved)
