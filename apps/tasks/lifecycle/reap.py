"""Moves running -> retrying or dead, for attempts whose worker is gone or whose time is over.

A lost attempt may have called its upstream: it is booked with its estimated input, so that no money is forgotten.

A worker is gone when its presence has expired, or when its advisory lock is free (a session that ended) and it has not
renewed for a second. Right after Postgres' own start nobody is reaped: the workers must get back to it first. So too
when nobody has reaped for a while: Postgres may have been frozen, and who could not renew has not died of it.
"""

import json
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection, transaction

from apps.access import admission
from apps.completions import lost_calls
from apps.completions.ledger import Entry
from apps.completions.lost_calls import LostCall
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
SELECT id, token, attempt, cycle, worker, attempt_started_at, kind, worker_losses, request_id, schema_version,
  project_id, api_key_id, end_user, extract(epoch FROM now() - attempt_started_at)::float8,
  CASE WHEN kind = ANY(%(calling)s) THEN coalesce(
    (SELECT body FROM tasks_taskpayload p WHERE p.task_id = running.id ORDER BY revision DESC LIMIT 1), '') END
FROM (
  SELECT t.*, EXISTS (SELECT 1 FROM tasks_workerpresence p WHERE p.id = t.worker) AS worker_alive
  FROM tasks_task t WHERE t.state = 'running') running
WHERE (NOT worker_alive AND pg_postmaster_start_time() + make_interval(secs => 2 * %(ttl)s) < now())
   OR run_until + make_interval(secs => %(grace)s) < now()
ORDER BY id LIMIT %(batch)s
"""


class _Lost(NamedTuple):
    """A running task that nobody works on any more. seconds: since its attempt began."""

    id: UUID
    token: int
    attempt: int
    cycle: int
    worker: UUID
    started_at: datetime
    kind: str
    losses: int
    request_id: str
    schema_version: int
    project_id: UUID
    api_key_id: UUID | None
    end_user: str
    seconds: float
    payload: str | None


@transaction.atomic
def reap() -> int:
    """Take the attempts of lost workers from them; how many."""
    ttl = settings.REDRIVE.worker_ttl
    with connection.cursor() as cursor:
        cursor.execute(_BEAR_WITH_WORKERS, {"ttl": ttl})
        cursor.execute(_FORGET_WORKERS, {"ttl": ttl, "lock_class": LOCK_CLASS})
        gone = cursor.fetchall()
        cursor.execute(_LOST, {"ttl": ttl, "grace": GRACE * ttl, "batch": BATCH, "calling": kinds.calling()})
        lost = [_Lost(*row) for row in cursor.fetchall()]
    if not lost:
        return 0
    calls = [call for call in map(_call_of, lost) if call is not None]
    booked = {entry.task_id: entry for entry in lost_calls.estimate(calls)}
    # One that has just finished keeps its end: the token decides.
    states = finish([_ending(one, booked.get(one.id)) for one in lost])
    taken = [one for one, state in zip(lost, states, strict=True) if state is not None]
    # No admission settles what was estimated: the counters are read from the ledger again.
    admission.recount({(one.project_id, one.api_key_id) for one in taken if one.id in booked and one.api_key_id})
    if taken:
        failpoints.hit("reap.midway")
        log.warning("attempts_reaped", tasks=len(taken), workers=len(gone))
    return len(taken)


def _ending(lost: _Lost, entry: Entry | None) -> Ending:
    return Ending(
        task_id=lost.id,
        kind=lost.kind,
        token=lost.token,
        number=lost.attempt,
        cycle=lost.cycle,
        worker=lost.worker,
        request_id=lost.request_id,
        started_at=lost.started_at,
        decision=retry_policy.lost(lost.losses + 1, idempotent=_is_idempotent(lost.kind)),
        failure=failure_of(WorkerLost(details={"may_have_run_twice": True}), kind=lost.kind, upstream=""),
        entries=[entry] if entry else [],
    )


def _is_idempotent(kind: str) -> bool:
    try:
        return kinds.find(kind).idempotent
    except UnknownKind:
        return True  # its next attempt says so


def _call_of(lost: _Lost) -> LostCall | None:
    """What its upstream may have done; None for a kind that calls none, and for a task that no key pays for."""
    if lost.payload is None or lost.api_key_id is None:
        return None
    kind = kinds.find(lost.kind)
    assert kind.call is not None
    try:
        args = kind.args.model_validate(kinds.upcast(kind, lost.schema_version, json.loads(lost.payload)))
        call = kind.call(args)
    except (ValueError, TypeError, UnknownKind):
        call = kinds.Call(
            lost.kind[:32], "", 0
        )  # such arguments reach no upstream; the row says that they were looked at
    return LostCall(
        lost.project_id, lost.api_key_id, lost.request_id, lost.end_user, call.operation, call.model,
        call.input_tokens, lost.seconds, lost.id, lost.attempt,
    )  # fmt: skip
