"""Moves dead -> pending: a redrive puts tasks back to work, with a new cycle and a fresh deadline."""

import json
from collections.abc import Sequence
from uuid import UUID

from django.db import connection

from apps.tasks import kinds
from apps.tasks.enqueue import ring_after_commit

_REVIVE = """
WITH chosen AS (SELECT id FROM tasks_task WHERE id = ANY(%(ids)s) AND state = 'dead' ORDER BY id FOR UPDATE)
UPDATE tasks_task t SET state = 'pending', cycle = t.cycle + 1, charged_failures = 0, worker_losses = 0,
  parked_since = NULL, cancel_requested = false, next_attempt_at = now(), finished_at = NULL,
  error = '', queue = coalesce(%(queues)s::jsonb ->> t.kind, t.priority),
  deadline = now() + make_interval(secs => t.allowed)
FROM chosen WHERE t.id = chosen.id RETURNING t.id, t.queue
"""


def revive(task_ids: Sequence[UUID]) -> set[UUID]:
    """Put dead tasks back, in the caller's transaction; those that won. For dead_letters.triage alone."""
    with connection.cursor() as cursor:
        cursor.execute(_REVIVE, {"ids": list(task_ids), "queues": json.dumps(kinds.own_queues())})
        rows = cursor.fetchall()
    ring_after_commit(queue for _, queue in rows)
    return {row[0] for row in rows}
