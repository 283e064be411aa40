"""Moves pending, retrying -> running: a worker takes due tasks, each with a token that fences earlier holders."""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from apps.core import failpoints
from apps.tasks import states
from apps.tasks.retry_policy import ALONE_AT


@dataclass(frozen=True, slots=True)
class Claimed:
    """A task with its lease. parked_for: seconds since it was first put off. args: JSON text."""

    id: UUID
    project_id: UUID
    api_key_id: UUID | None
    request_id: str
    end_user: str
    kind: str
    schema_version: int
    queue: str
    token: int
    attempt: int
    cycle: int
    charged_failures: int
    worker_losses: int
    parked_for: float
    callback_url: str
    parent_id: UUID | None
    created_at: datetime
    started_at: datetime
    seconds_left: float | None
    revision: int
    args: str

    def arguments(self) -> dict[str, Any]:
        """The arguments as stored. Raises ValueError or TypeError where the payload is broken."""
        found = json.loads(self.args)
        if not isinstance(found, dict):
            raise TypeError("a payload is a JSON object")
        return found


_CLAIM = """
WITH due AS (
  SELECT id FROM tasks_task
  WHERE queue = %(queue)s AND state IN ('pending', 'retrying') AND next_attempt_at <= now()
    AND (deadline IS NULL OR deadline > now())
    AND worker_losses BETWEEN %(least)s AND %(most)s
    AND NOT EXISTS (SELECT 1 FROM tasks_queuestate q WHERE q.name = %(queue)s AND q.paused_at IS NOT NULL
                    AND (q.resume_at IS NULL OR q.resume_at > now()))
  ORDER BY next_attempt_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED),
won AS (
  UPDATE tasks_task t SET state = 'running', attempt = t.attempt + 1, token = nextval('task_token'),
    worker = %(worker)s, attempt_started_at = now(), started_at = coalesce(t.started_at, now()),
    run_until = now() + make_interval(secs => coalesce((%(limits)s::jsonb ->> t.kind)::float8, %(limit_default)s))
  FROM due WHERE t.id = due.id RETURNING t.*)
SELECT won.id, project_id, api_key_id, request_id, end_user, kind, schema_version, queue, token, attempt, cycle,
  charged_failures, worker_losses, coalesce(extract(epoch FROM now() - parked_since), 0)::float8, callback_url,
  parent_id, won.created_at, attempt_started_at, extract(epoch FROM deadline - now())::float8,
  coalesce(p.revision, 0), coalesce(p.body, '')
FROM won LEFT JOIN LATERAL (
  SELECT revision, body FROM tasks_taskpayload p WHERE p.task_id = won.id ORDER BY revision DESC LIMIT 1) p ON true
"""


def claim(
    queue: str,
    worker: UUID,
    most: int,
    *,
    limits: dict[str, float],
    alone: bool = False,
    unwanted: Callable[[], bool] = lambda: False,
) -> list[Claimed]:
    """At most `most` due tasks of a queue, oldest due first. limits: seconds of an attempt, by kind.

    alone: in quarantine, a task that must have nothing beside it; otherwise those are left where they are.
    unwanted: asked before the commit; where nobody waits for the answer any more, nothing is taken.
    """
    least, greatest = (ALONE_AT, 32_767) if alone else (0, ALONE_AT - 1)
    values: dict[str, str | int | float | UUID] = {
        "queue": queue,
        "worker": worker,
        "limit": 1 if alone else most,
        "least": least,
        "most": greatest if queue == states.QUARANTINE else 32_767,
        "limits": json.dumps(limits),
        "limit_default": 600.0,
    }
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_CLAIM, values)
        claimed = [Claimed(*row) for row in cursor.fetchall()]
        if unwanted():
            transaction.set_rollback(True)
            return []
    if claimed:
        failpoints.hit("claim.after_commit")
    return claimed


def due_queues(queues: Collection[str]) -> set[str]:
    """Those of the queues that have work due now."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT q FROM unnest(%s::text[]) AS q CROSS JOIN LATERAL (
              SELECT FROM tasks_task
              WHERE queue = q AND state IN ('pending', 'retrying') AND next_attempt_at <= now()
              ORDER BY next_attempt_at LIMIT 1) due
            """,  # one step in the index for each queue, however much is due
            [list(queues)],
        )
        return {row[0] for row in cursor.fetchall()}
