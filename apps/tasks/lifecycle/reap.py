"""Moves running -> retrying or dead, for attempts whose worker is gone or whose time is over.

A worker is gone when its presence has expired, or when its advisory lock is free (a session that ended) and it has not
renewed for a second. Right after Postgres' own start nobody is reaped: the workers must get back to it first. So too
when nobody has reaped for a while: Postgres may have been frozen, and who could not renew has not died of it.
"""

from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection, transaction

from apps.core import failpoints
from apps.tasks import kinds, retry_policy
from apps.tasks.errors import UnknownKind, WorkerLost
from apps.tasks.lifecycle.ending import Ending, failure_of
from apps.tasks.lifecycle.finish import finish

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
  OR (p.lock_key IS NOT NULL AND p.beat_at < now() - interval '1 second' AND NOT EXISTS (
    SELECT 1 FROM pg_locks l WHERE l.locktype = 'advisory' AND l.classid = %(lock_class)s
      AND l.objid = p.lock_key::oid AND l.objsubid = 2 AND l.granted)))
RETURNING p.id
"""
_LOST = """
SELECT id, token, attempt, cycle, worker, attempt_started_at, kind, worker_losses, request_id
FROM (
  SELECT t.*, EXISTS (SELECT 1 FROM tasks_workerpresence p WHERE p.id = t.worker) AS worker_alive
  FROM tasks_task t WHERE t.state = 'running') running
WHERE (NOT worker_alive AND pg_postmaster_start_time() + make_interval(secs => 2 * %(ttl)s) < now())
   OR run_until + make_interval(secs => %(grace)s) < now()
ORDER BY id LIMIT %(batch)s
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
        lost = [_ending(*row) for row in cursor.fetchall()]
    # One that has just finished keeps its end: the token decides.
    taken = sum(state is not None for state in finish(lost)) if lost else 0
    if taken:
        failpoints.hit("reap.midway")
        log.warning("attempts_reaped", tasks=taken, workers=len(gone))
    return taken


def _ending(
    task_id: UUID, token: int, attempt: int, cycle: int, worker: UUID, started_at: Any, kind: str, losses: int,
    request_id: str,
) -> Ending:  # fmt: skip
    return Ending(
        task_id=task_id,
        kind=kind,
        token=token,
        number=attempt,
        cycle=cycle,
        worker=worker,
        request_id=request_id,
        started_at=started_at,
        decision=retry_policy.lost(losses + 1, idempotent=_is_idempotent(kind)),
        failure=failure_of(WorkerLost(details={"may_have_run_twice": True}), kind=kind, upstream=""),
    )


def _is_idempotent(kind: str) -> bool:
    try:
        return kinds.find(kind).idempotent
    except UnknownKind:
        return True  # its next attempt says so
