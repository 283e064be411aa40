"""What people do to a bulk operation: start and undo it, pause, change its pace, resume, cancel.

Each is one conditional UPDATE that names where it may start and says whether it won. actor: a Django user who must be
permitted, or None for the command line.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from apps.access import audit
from apps.access.permissions import require
from apps.access.reasons import checked
from apps.core.errors import InvalidRequest
from apps.dead_letters import bulk_states, triage
from apps.dead_letters.bulk.plan import PERMISSIONS, Action
from apps.dead_letters.errors import OperationHasMoved, OperationNotFound
from apps.dead_letters.models import BulkOperation, BulkSlot

N = TypeVar("N", int, float)
HOLD = 10.0  # seconds between the start and the first release, in which it can be undone
CANARIES, SMALL = 3, 20  # by default, of an operation with more than SMALL items
LARGE = {Action.REDRIVE: 1000, Action.DISCARD: 100, Action.RESTORE: 1000}  # beyond it the number is typed
RATES = (0.01, 1000.0)
IN_FLIGHT = (1, 5000)


@transaction.atomic
def start(
    operation_id: UUID,
    *,
    confirm: int | None = None,
    reason: str = "",
    code: str = "",
    rate: float | None = None,
    max_in_flight: int | None = None,
    canary: int | None = None,
    stop_percent: int | None = None,
    actor: Any = None,
) -> BulkOperation:
    """Let a counted operation go after the hold. confirm: how many letters it is about, needed of a large one.

    reason: needed to discard, with a code. rate: letters a second. canary, stop_percent: of a redrive. What is not
    given stays as it is. Raises OperationNotFound, OperationHasMoved, PermissionDenied, InvalidRequest.
    """
    operation = _locked(operation_id, actor)
    discards = operation.action == Action.DISCARD
    _needs_state(operation, (bulk_states.READY,))
    reason = checked(reason, needed="Say why they are discarded." if discards else "")
    if not operation.pending:
        raise InvalidRequest("No letter is left to decide.", param="confirm")
    if operation.pending > LARGE[Action(operation.action)] and confirm != operation.pending:
        raise InvalidRequest(f"Type the number of letters: {operation.pending}.", param="confirm")
    operation.reason = reason
    operation.discard_code = triage.discard_code(code or "other") if discards else ""
    _set_pace(operation, rate, max_in_flight)
    if operation.action == Action.REDRIVE:
        default = CANARIES if operation.pending > SMALL else 0
        operation.canary = _within(default if canary is None else canary, (0, operation.pending), "canary")
        if stop_percent is not None:
            operation.stop_percent = _within(stop_percent, (1, 100), "stop_percent")
    operation.state, operation.started_at = bulk_states.HOLDING, Now()
    for name, value in _answered_for_by(actor).items():
        setattr(operation, name, value)
    operation.save()
    BulkOperation.objects.filter(pk=operation.pk).update(release_at=_in(HOLD))
    pace = {"rate": operation.rate, "max_in_flight": operation.max_in_flight, "canary": operation.canary}
    letters = {"letters": operation.pending, "stop_percent": operation.stop_percent}
    audit.record("start", operation, actor=actor, reason=reason, after={**letters, **pace})
    return _fresh(operation)


@transaction.atomic
def undo(operation_id: UUID, *, actor: Any = None) -> BulkOperation:
    """Take the start back, within the hold. Raises OperationNotFound, OperationHasMoved, PermissionDenied."""
    return _move(operation_id, "undo", (bulk_states.HOLDING,), bulk_states.READY, actor, release_at=None)


@transaction.atomic
def pause(operation_id: UUID, *, actor: Any = None, reason: str = "") -> BulkOperation:
    """Release nothing more for now; what was released goes on. Raises as `undo`."""
    return _move(operation_id, "pause", bulk_states.RELEASING, bulk_states.PAUSED, actor, reason, resumes_in=F("state"))


@transaction.atomic
def resume(operation_id: UUID, *, actor: Any = None, reason: str = "") -> BulkOperation:
    """Go on after a pause; or after it stopped, with all that has failed so far let pass. Raises as `undo`.

    What is released from now on is decided in the name of whoever resumes it. Where it stopped for want of somebody who
    may, it goes on as after a pause: its canaries are still to be tried, and nobody was told of any failure.
    """
    operation = _locked(operation_id, actor)
    fields = {"paced_at": Now(), **_answered_for_by(actor)}
    if operation.state == bulk_states.PAUSED:
        return _move(operation_id, "resume", (bulk_states.PAUSED,), operation.resumes_in, actor, reason, **fields)
    fields["stop_reason"] = ""
    if not operation.resumes_in:
        fields |= {"judged_from": operation.ended, "judged_failed": operation.failed}
    target = operation.resumes_in or bulk_states.RUNNING
    return _move(operation_id, "resume", (bulk_states.STOPPED,), target, actor, reason, **fields)


@transaction.atomic
def change_pace(
    operation_id: UUID, *, rate: float | None = None, max_in_flight: int | None = None, actor: Any = None
) -> BulkOperation:
    """Go faster or slower, at any time before its end. Raises as `undo`, and InvalidRequest."""
    operation = _locked(operation_id, actor)
    _needs_state(operation, bulk_states.ACTIVE)
    before = {"rate": operation.rate, "max_in_flight": operation.max_in_flight}
    _set_pace(operation, rate, max_in_flight)
    operation.save(update_fields=["rate", "max_in_flight"])
    after = {"rate": operation.rate, "max_in_flight": operation.max_in_flight}
    audit.record("change_pace", operation, actor=actor, before=before, after=after)
    return operation


@transaction.atomic
def cancel(operation_id: UUID, *, actor: Any = None, reason: str = "") -> BulkOperation:
    """End it: what was not released stays as it was, what was goes on. Raises as `undo`."""
    moved = _move(operation_id, "cancel", bulk_states.ACTIVE, bulk_states.CANCELLED, actor, reason, finished_at=Now())
    give_back(moved)
    return moved


def give_back(operation: BulkOperation) -> None:
    """Let other operations have its groups."""
    BulkSlot.objects.filter(operation_id=operation.pk).delete()


def find(operation_id: UUID) -> BulkOperation:
    """The operation. Raises OperationNotFound."""
    found = BulkOperation.objects.filter(pk=operation_id).first()
    if found is None:
        raise OperationNotFound()
    return found


def _move(
    operation_id: UUID, action: str, sources: Sequence[str], target: str, actor: Any, reason: str = "", **fields: Any
) -> BulkOperation:
    operation = _locked(operation_id, actor)
    assert all(target in bulk_states.TRANSITIONS[source] for source in sources), (sources, target)
    moved = BulkOperation.objects.filter(pk=operation_id, state__in=sources).update(state=target, **fields)
    if not moved:
        _needs_state(operation, sources)
    change = {"before": {"state": operation.state}, "after": {"state": target}}
    audit.record(action, operation, actor=actor, reason=checked(reason), **change)
    return _fresh(operation)


def _locked(operation_id: UUID, actor: Any) -> BulkOperation:
    operation = BulkOperation.objects.select_for_update().filter(pk=operation_id).first()
    if operation is None:
        raise OperationNotFound()
    require(actor, PERMISSIONS[Action(operation.action)])
    return operation


def _answered_for_by(actor: Any) -> dict[str, Any]:
    return {"started_by": audit.name_of(actor), "actor_id": getattr(actor, "pk", None)}


def _needs_state(operation: BulkOperation, states: Sequence[str]) -> None:
    if operation.state not in states:
        raise OperationHasMoved(f"The operation is {operation.state}: this is possible while it is {_or(states)}.")


def _set_pace(operation: BulkOperation, rate: float | None, max_in_flight: int | None) -> None:
    if rate is not None:
        operation.rate = _within(rate, RATES, "rate")
    if max_in_flight is not None:
        operation.max_in_flight = _within(max_in_flight, IN_FLIGHT, "max_in_flight")


def _within(value: N, bounds: tuple[N, N], param: str) -> N:
    if not bounds[0] <= value <= bounds[1]:
        raise InvalidRequest(f"From {bounds[0]:,} to {bounds[1]:,}.", param=param)
    return value


def _in(seconds: float) -> Any:
    return Now() + timedelta(seconds=seconds)


def _fresh(operation: BulkOperation) -> BulkOperation:
    operation.refresh_from_db()
    return operation


def _or(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
