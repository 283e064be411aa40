"""Moves running -> retrying or dead, for attempts whose worker is gone or whose time is over.

A worker is gone when its presence has expired, or when its advisory lock is free (a session that ended) and it has not
renewed for a second. Right after Postgres' own start nobody is reaped: the workers must get back to it first. So too
when nobody has reaped for a while: Postgres may have been frozen, and who could not renew has not died of it.
"""

from collections.abc import Sequence
from typing import Any

import structlog
from django.conf import settings
from django.db import connection, transaction

from apps.core import failpoints, json_codec
from apps.tasks import fingerprint, kinds, retry_policy, states
from apps.tasks.errors import UnknownKind, WorkerLost
from apps.tasks.lifecycle.finish import tell
from apps.tasks.models import TaskAttempt
from apps.tasks.signals import Death, Finished

log = structlog.get_logger(__name__)

LOCK_CLASS = 0x5EED  # first half of the workers' advisory lock keys
GRACE = 3.0  # TTLs beyond an attempt's time before it is taken from a worker that still lives
BATCH = 500

_BEAR_WITH_WORKERS = """
UPDATE tasks_workerpresence SET beat_at = now(), expires_at = now() + make_interval(secs => %(ttl)s)
WHERE EXISTS (
  SELECT 1 FROM tasks_clockbeat WHERE chore = 'reap' AND beat_at < now() - make_interval(secs => %(ttl)s / 2))
"""
_FORGET_WORKERS = """
DELETE FROM tasks_workerpresence p
WHERE pg_postmaster_start_time() + make_interval(secs => 2 * %(ttl)s) < now() AND (
  p.expires_at < now()
  OR (p.beat_at < now() - interval '1 second' AND NOT EXISTS (
    SELECT 1 FROM pg_locks l WHERE l.locktype = 'advisory' AND l.classid = %(lock_class)s
      AND l.objid = p.lock_key::oid AND l.objsubid = 2 AND l.granted)))
RETURNING p.id
"""
_LOST = """
SELECT id, token, attempt, cycle, worker, attempt_started_at, kind, queue, project_id, api_key_id, worker_losses,
  callback_url, parent_id, request_id, cancel_requested, worker_alive
FROM (
  SELECT t.*, EXISTS (SELECT 1 FROM tasks_workerpresence p WHERE p.id = t.worker) AS worker_alive
  FROM tasks_task t WHERE t.state = 'running') running
WHERE (NOT worker_alive AND pg_postmaster_start_time() + make_interval(secs => 2 * %(ttl)s) < now())
   OR run_until + make_interval(secs => %(grace)s) < now()
ORDER BY id LIMIT %(batch)s
"""
_TAKE = """
WITH f AS (
  SELECT * FROM unnest(%s::uuid[], %s::bigint[], %s::text[], %s::text[], %s::float8[], %s::text[])
    AS f(id, token, state, queue, delay, error)),
 held AS (
  SELECT t.id FROM tasks_task t JOIN f ON f.id = t.id AND f.token = t.token AND t.state = 'running'
  ORDER BY t.id FOR UPDATE OF t SKIP LOCKED)
UPDATE tasks_task t SET state = f.state, token = NULL, worker = NULL, run_until = NULL,
  worker_losses = t.worker_losses + 1, parked_since = NULL,
  queue = coalesce(nullif(f.queue, ''), t.queue), next_attempt_at = now() + make_interval(secs => f.delay),
  finished_at = CASE WHEN f.state IN ('dead', 'cancelled') THEN now() END, error = f.error
FROM f, held WHERE t.id = f.id AND held.id = t.id
RETURNING t.id
"""
_ATTEMPT = """
INSERT INTO tasks_taskattempt (task_id, number, cycle, token, worker, started_at, finished_at, outcome, charged,
  error_code, error_status, error_message, fingerprint, traceback, upstream, input_tokens, output_tokens, cost_nusd)
VALUES (%s, %s, %s, %s, %s, %s, now(), %s, false, %s, %s, %s, %s, '', '', 0, 0, 0)
"""


@transaction.atomic
def reap() -> int:
    """Take the attempts of lost workers from them; how many."""
    ttl = settings.REDRIVE.worker_ttl
    with connection.cursor() as cursor:
        cursor.execute(_BEAR_WITH_WORKERS, {"ttl": ttl})
        cursor.execute(_FORGET_WORKERS, {"ttl": ttl, "lock_class": LOCK_CLASS})
        gone = cursor.fetchall()
        cursor.execute(_LOST, {"ttl": ttl, "grace": GRACE * ttl, "batch": BATCH})
        names = [column.name for column in cursor.description]
        lost = [_Lost(dict(zip(names, row, strict=True))) for row in cursor.fetchall()]
        if not lost:
            return 0
        cursor.execute(_TAKE, [list(column) for column in zip(*(one.move() for one in lost), strict=True)])
        taken = {row[0] for row in cursor.fetchall()}
        failpoints.hit("reap.midway")
        won = [one for one in lost if one.task_id in taken]
        cursor.executemany(_ATTEMPT, [one.attempt() for one in won])
    _tell(won)
    log.warning("attempts_reaped", tasks=len(won), workers=len(gone))
    return len(won)


class _Lost:
    """A running task that nobody works on any more, and what becomes of it."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.row = row
        self.task_id = row["id"]
        self.losses = row["worker_losses"] + 1
        self.state, self.queue, self.delay = retry_policy.lost(self.losses, idempotent=_is_idempotent(row["kind"]))
        if row["cancel_requested"]:
            self.state = states.CANCELLED
        self.error = WorkerLost()
        self.fingerprint = fingerprint.compute(
            kind=row["kind"], upstream="", code=self.error.code, status=None, message=self.error.message
        )

    def inner(self) -> dict[str, Any]:
        """The inner error object."""
        return {
            "message": self.error.message,
            "type": self.error.type,
            "param": None,
            "code": self.error.code,
            "request_id": self.row["request_id"],
            "details": {"may_have_run_twice": True},
        }

    def move(self) -> tuple[Any, ...]:
        """The values of _TAKE."""
        error = json_codec.ascii_dumps(self.inner()) if self.state == states.DEAD else ""
        return (self.task_id, self.row["token"], self.state, self.queue or "", self.delay, error)

    def attempt(self) -> tuple[Any, ...]:
        """The values of _ATTEMPT."""
        row = self.row
        outcome = TaskAttempt.Outcome.WORKER_LOST
        return (
            self.task_id, row["attempt"], row["cycle"], row["token"], row["worker"], row["attempt_started_at"],
            outcome, self.error.code, None, self.error.message, self.fingerprint,
        )  # fmt: skip


def _is_idempotent(kind: str) -> bool:
    try:
        return kinds.find(kind).idempotent
    except UnknownKind:
        return True  # its next attempt says so


def _tell(won: Sequence[_Lost]) -> None:
    finished = [
        Finished(
            one.task_id,
            one.row["project_id"],
            one.row["kind"],
            one.state,
            one.row["callback_url"],
            one.row["parent_id"],
        )
        for one in won
        if one.state in states.FINAL
    ]
    deaths = [
        Death(
            task_id=one.task_id,
            project_id=one.row["project_id"],
            api_key_id=one.row["api_key_id"],
            kind=one.row["kind"],
            queue=one.row["queue"],
            cycle=one.row["cycle"],
            attempt=one.row["attempt"],
            fingerprint=one.fingerprint,
            upstream="",
            error=one.inner(),
        )
        for one in won
        if one.state == states.DEAD
    ]
    tell(finished, deaths)
