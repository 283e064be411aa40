"""Runs bulk operations, by the clock: counts, ends holds, releases at the pace, judges, ends.

One tick is one transaction: a letter is decided and its item marked in it, or neither. Killed at any point, the next
tick, of whichever clock, goes on where the last one committed.
"""

import math
import time
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from django.contrib.auth import get_user_model
from django.db import connection, transaction

from apps.access import audit
from apps.core import failpoints
from apps.core.errors import RedriveError
from apps.dead_letters import bulk_states, decisions
from apps.dead_letters.bulk.control import give_back
from apps.dead_letters.bulk.plan import DISABLED, PERMISSIONS, SOURCE_STATE, Action, count
from apps.dead_letters.models import BulkItem, BulkOperation, DeadLetter

log = structlog.get_logger(__name__)

EVERY = 0.5  # seconds between two ticks
UNWANTED = timedelta(hours=1)  # after which a counted operation that nobody has started gives its groups back
MOST_AT_ONCE = 1000  # letters of one tick
LONGEST_GAP = 2.0  # seconds that a tick makes up for, beside those of one letter: a clock that was away starts gently
COUNTED_AT_ONCE = 1.5  # seconds of one tick
LEAST_JUDGED = 10  # ended items before the share of failures means anything

# OFFSET 0: from the items that are in flight to their letters, one by one. Postgres, which takes these for many more
# than they are, would read all letters instead, at each tick.
_ENDED = """
SELECT i.operation_id, i.letter_id, l.outcome FROM dead_letters_bulkitem i CROSS JOIN LATERAL (
  SELECT outcome FROM dead_letters_deadletter WHERE id = i.letter_id AND outcome <> '' OFFSET 0) l
WHERE i.state = 'released' AND i.outcome = ''
"""
_SETTLE = """
WITH ended AS (
  UPDATE dead_letters_bulkitem i SET outcome = e.outcome
  FROM unnest(%s::uuid[], %s::uuid[], %s::text[]) AS e(operation_id, letter_id, outcome)
  WHERE i.operation_id = e.operation_id AND i.letter_id = e.letter_id AND i.outcome = ''
  RETURNING i.operation_id, i.outcome)
SELECT operation_id, count(*) FILTER (WHERE outcome = 'succeeded'), count(*) FILTER (WHERE outcome = 'dead'),
  count(*) FILTER (WHERE outcome = 'cancelled')
FROM ended GROUP BY operation_id ORDER BY operation_id
"""
_COUNT_ENDED = """
UPDATE dead_letters_bulkoperation SET succeeded = succeeded + %s, failed = failed + %s, cancelled = cancelled + %s
WHERE id = %s
"""


def tick() -> int:
    """Let every active operation do its next step; how many did something."""
    settle()
    active = BulkOperation.objects.filter(state__in=bulk_states.ACTIVE).order_by("pk").values_list("pk", flat=True)
    return sum(_steps(operation_id) for operation_id in list(active))


@transaction.atomic
def settle() -> None:
    """Note how released tasks have ended; also of operations that have ended themselves."""
    with connection.cursor() as cursor:
        cursor.execute(_ENDED)
        ended = cursor.fetchall()
        if not ended:
            return
        cursor.execute(_SETTLE, [list(column) for column in zip(*ended, strict=True)])
        for operation_id, succeeded, failed, cancelled in cursor.fetchall():
            cursor.execute(_COUNT_ENDED, [succeeded, failed, cancelled, operation_id])


def _steps(operation_id: UUID) -> bool:
    until = time.monotonic() + COUNTED_AT_ONCE
    counting = BulkOperation.objects.filter(pk=operation_id, state=bulk_states.COUNTING)
    did = _step(operation_id)
    # A chunk is a transaction of its own: one that held the groups of the last while it takes more could deadlock.
    while did and time.monotonic() < until and counting.exists():
        did = _step(operation_id)
    return did


def _step(operation_id: UUID) -> bool:
    try:
        with transaction.atomic():
            operation = _taken(operation_id)
            if operation is None:
                return False
            if operation.stop_reason and operation.state != bulk_states.STOPPED:  # of a try that failed
                operation.stop_reason = ""
                operation.save(update_fields=["stop_reason"])
            return _advance(operation, _now())
    except RedriveError as error:
        # What it was made of is understood no longer: a project that is gone, a word of an older version.
        log.warning("bulk_operation_stopped", operation=operation_id.hex, error=error.message)
        return _give_up(operation_id, f"It cannot go on: {error.message}")
    except Exception as error:
        if not connection.is_usable():
            raise
        # It is tried again, and holds up none of the others; its page says so.
        log.error("bulk_operation_failed", operation=operation_id.hex, exc_info=error)
        words = f"It does not get on: {type(error).__name__}. The clock tries again; its log says more."
        BulkOperation.objects.filter(pk=operation_id).update(stop_reason=words)
        return False


def _taken(operation_id: UUID) -> BulkOperation | None:
    """The operation, locked; None where somebody else is at it, or has ended it."""
    active = BulkOperation.objects.filter(pk=operation_id, state__in=bulk_states.ACTIVE)
    return active.select_for_update(skip_locked=True).first()


@transaction.atomic
def _give_up(operation_id: UUID, why: str) -> bool:
    operation = _taken(operation_id)
    return operation is not None and _end(operation, bulk_states.CANCELLED, _now(), why)


def _advance(operation: BulkOperation, now: datetime) -> bool:
    match operation.state:
        case bulk_states.COUNTING:
            if not count(operation):
                return True
            if not operation.pending:
                return _end(operation, bulk_states.DONE, now, "No letter was left to decide.")
            return _enter(operation, bulk_states.READY)
        case bulk_states.READY if _ready_since(operation) < now - UNWANTED:
            return _end(operation, bulk_states.CANCELLED, now, "Nobody started it within an hour.")
        case bulk_states.HOLDING if operation.release_at is not None and operation.release_at <= now:
            _enter(operation, bulk_states.CANARY if operation.canary else bulk_states.RUNNING, paced_at=now)
            return _is_barred(operation) or _release(operation, now)
        case bulk_states.CANARY | bulk_states.RUNNING:
            return _judge(operation, now) or _is_barred(operation) or _release(operation, now)
    return False


def _ready_since(operation: BulkOperation) -> datetime:
    """Not since it was made: a clock that was away counts it late."""
    return operation.started_at or operation.counted_at or operation.created_at


def _is_barred(operation: BulkOperation) -> bool:
    """Whether it stops, for the person who lets it run may not do so any more."""
    if operation.actor_id is None or not operation.pending:  # of the command line, or with nothing left to decide
        return False
    person = get_user_model().objects.filter(pk=operation.actor_id).first()
    # Nobody inactive has a permission; who is not of the staff has no way in to use one.
    if person is not None and person.is_staff and person.has_perm(PERMISSIONS[Action(operation.action)]):
        return False
    why = f"{operation.started_by} may not do this any more. Whoever lets it go on answers for it."
    return _stop(operation, why, resumes_in=operation.state)


def _judge(operation: BulkOperation, now: datetime) -> bool:
    """Whether what has ended so far ends, stops or frees the operation."""
    if operation.state == bulk_states.CANARY:
        is_tried = operation.released >= operation.canary or not operation.pending
        if operation.pending and (operation.failed or operation.cancelled):
            return _stop(operation, f"{operation.failed + operation.cancelled} of the first {operation.released} did "
                         "not succeed.")  # fmt: skip
        if is_tried and not operation.in_flight:
            _enter(operation, bulk_states.RUNNING, paced_at=now)
    ended, failed = operation.ended - operation.judged_from, operation.failed - operation.judged_failed
    if operation.pending and ended >= LEAST_JUDGED and failed * 100 > operation.stop_percent * ended:
        return _stop(operation, f"{failed} of {ended} that have ended failed again: more than "
                     f"{operation.stop_percent} %.")  # fmt: skip
    if not operation.pending and not operation.in_flight:
        return _end(operation, bulk_states.DONE, now)
    return False


def _release(operation: BulkOperation, now: datetime) -> bool:
    wanted = _allowance(operation, now)
    if wanted <= 0:
        return False
    items = BulkItem.objects.filter(operation_id=operation.pk, state=bulk_states.PENDING)
    chosen = list(items.order_by("letter_id").values_list("letter_id", flat=True)[:wanted])
    barred = _barred(operation, chosen)
    won = _decide(operation, [one for one in chosen if one not in barred])
    failpoints.hit("bulk.after_release")
    redrives = operation.action == Action.REDRIVE
    # Of others than redrives no end is waited for.
    marks = {"state": bulk_states.RELEASED, "outcome": "" if redrives else operation.action}
    of_it = BulkItem.objects.filter(operation_id=operation.pk)
    of_it.filter(letter_id__in=won).update(**marks)
    left = _causes(operation, [one for one in chosen if one not in won and one not in barred])
    for cause, lost in {**left, DISABLED: barred}.items():
        of_it.filter(letter_id__in=lost).update(state=bulk_states.SKIPPED, cause=cause)
    operation.released += len(won)
    operation.skipped += len(chosen) - len(won)
    operation.save(update_fields=["released", "skipped", "paced_at"])
    return True


def _allowance(operation: BulkOperation, now: datetime) -> int:
    """How many items may go now, by the pace and by what is in flight; the pace's rest stays for the next tick."""
    if operation.state == bulk_states.CANARY:
        return min(operation.canary - operation.released, operation.pending)
    since = operation.paced_at or now
    since = max(since, now - timedelta(seconds=LONGEST_GAP + 1 / operation.rate))
    # A ten thousandth more, so that n / rate seconds are n items whatever the rounding.
    by_pace = math.floor((now - since).total_seconds() * operation.rate + 1e-4)
    wanted = min(by_pace, operation.pending, MOST_AT_ONCE)
    if operation.action == Action.REDRIVE:
        wanted = min(wanted, operation.max_in_flight - operation.in_flight)
    if by_pace > 0:
        operation.paced_at = since + timedelta(seconds=by_pace / operation.rate)
    return wanted


def _decide(operation: BulkOperation, letter_ids: list[UUID]) -> set[UUID]:
    shared: dict[str, Any] = {
        "actor": audit.Process(operation.started_by, operation.actor_id),
        "reason": operation.reason,
        "operation_id": operation.pk,
    }
    if operation.action == Action.REDRIVE:
        return decisions.redrive(letter_ids, **shared)
    if operation.action == Action.DISCARD:
        return decisions.discard(letter_ids, code=operation.discard_code, **shared)
    return decisions.restore(letter_ids, **shared)


def _barred(operation: BulkOperation, letter_ids: list[UUID]) -> set[UUID]:
    """Those whose API key was disabled since they were counted: whoever did that wants no more calls for it."""
    if operation.action != Action.REDRIVE:
        return set()
    rows = DeadLetter.objects.filter(pk__in=letter_ids, api_key__disabled_at__isnull=False)
    return set(rows.values_list("pk", flat=True))


def _causes(operation: BulkOperation, letter_ids: list[UUID]) -> dict[str, list[UUID]]:
    """Why letters were not won, each with those it is true of."""
    if not letter_ids:
        return {}
    rows = dict(DeadLetter.objects.filter(pk__in=letter_ids).values_list("pk", "state"))
    found: dict[str, list[UUID]] = {}
    for letter_id in letter_ids:
        state = rows.get(letter_id)
        if state is None:
            cause = "it was deleted by retention"
        elif state == SOURCE_STATE[Action(operation.action)]:
            cause = "its task is gone or not dead any more"
        else:
            cause = f"somebody else decided: {state}"
        found.setdefault(cause, []).append(letter_id)
    return found


def _enter(operation: BulkOperation, target: str, **fields: Any) -> bool:
    """Move the operation, whose row is locked."""
    assert target in bulk_states.TRANSITIONS[operation.state], (operation.state, target)
    for name, value in {"state": target, **fields}.items():
        setattr(operation, name, value)
    operation.save(update_fields=["state", *fields])
    return True


def _stop(operation: BulkOperation, why: str, *, resumes_in: str = "") -> bool:
    _enter(operation, bulk_states.STOPPED, stop_reason=why, resumes_in=resumes_in)
    audit.record("stop", operation, actor=audit.CLOCK, reason=why, after={"state": operation.state})
    return True


def _end(operation: BulkOperation, target: str, now: datetime, why: str = "") -> bool:
    _enter(operation, target, finished_at=now, **({"stop_reason": why} if why else {}))
    give_back(operation)
    audit.record(target, operation, actor=audit.CLOCK, reason=why, after={"state": target})
    return True


def _now() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        now: datetime = cursor.fetchone()[0]
    return now
