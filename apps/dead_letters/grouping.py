"""What people decide about a failure group: who works on it, when to see it again, whether its failures are retried.

Each verb locks the group's row, moves it as `group_states` allows, and is audited. actor: a Django user who must be
permitted, or None for the command line. What the clock does to groups is in `tallies`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import Sum
from django.db.models.functions import Now
from django.utils import timezone

from apps.access import audit
from apps.access.permissions import require
from apps.access.reasons import checked, written
from apps.core.database import storable
from apps.core.errors import InvalidRequest
from apps.dead_letters import group_states
from apps.dead_letters.errors import GroupHasMoved, GroupNotFound
from apps.dead_letters.models import FailureGroup, GroupTally
from apps.tasks import holds

MAY_CHANGE = "dead_letters.change_failuregroup"
MAY_HOLD = "dead_letters.hold_failuregroup"
MAX_NOTE = 2000  # characters
LONGEST_SNOOZE = timedelta(days=366)
MOST_MORE = 1_000_000
CHANGED = ("state", "owner", "note", "snoozed_until", "snooze_after")


def assign(fingerprint: str, *, owner: str, actor: Any = None, reason: str = "") -> FailureGroup:
    """Give it to an active member of the staff by name, or ("") to nobody. One that waits for a look is then open.

    Raises GroupNotFound, PermissionDenied, InvalidRequest.
    """
    with _changing("assign", fingerprint, actor, reason) as group:
        group.owner = _staff(owner) if owner else None
        if group.owner is not None and group.state in group_states.TO_REVIEW:
            _move(group, group_states.OPEN)
    return group


def note(fingerprint: str, *, text: str, actor: Any = None) -> FailureGroup:
    """Replace the note. Raises GroupNotFound, PermissionDenied, InvalidRequest."""
    text = written(text)
    if len(text) > MAX_NOTE:
        raise InvalidRequest(f"A note has at most {MAX_NOTE:,} characters.", param="text")
    with _changing("note", fingerprint, actor, "") as group:
        group.note = text
    return group


def snooze(
    fingerprint: str, *, until: datetime | None = None, more: int | None = None, actor: Any = None, reason: str = ""
) -> FailureGroup:
    """Hide it until a time, or until it has failed so many times more, or (both given) what comes first.

    Raises GroupNotFound, GroupHasMoved, PermissionDenied, InvalidRequest.
    """
    if until is None and more is None:
        raise InvalidRequest("Say until when, or after how many failures more.", param="until")
    if until is not None and timezone.is_naive(until):
        raise InvalidRequest("Name a time with its time zone.", param="until")
    if until is not None and not timezone.now() < until < timezone.now() + LONGEST_SNOOZE:
        raise InvalidRequest("Name a time in the future, within a year.", param="until")
    if more is not None and not 1 <= more <= MOST_MORE:
        raise InvalidRequest(f"From 1 to {MOST_MORE:,}.", param="more")
    with _changing("snooze", fingerprint, actor, reason) as group:
        _move(group, group_states.SNOOZED)
        group.snoozed_until = until
        group.snooze_after = group.died_count + _unfolded(group) + more if more is not None else None
    return group


def resolve(fingerprint: str, *, actor: Any = None, reason: str = "") -> FailureGroup:
    """Be done with it; its open letters stay open. If it fails again it is regressed.

    Raises GroupNotFound, GroupHasMoved, PermissionDenied.
    """
    with _changing("resolve", fingerprint, actor, reason) as group:
        _move(group, group_states.RESOLVED)
    return group


def reopen(fingerprint: str, *, actor: Any = None, reason: str = "") -> FailureGroup:
    """Work on it: it was looked at, or is taken up again. Raises GroupNotFound, GroupHasMoved, PermissionDenied."""
    with _changing("reopen", fingerprint, actor, reason) as group:
        _move(group, group_states.OPEN)
    return group


@transaction.atomic
def hold(fingerprint: str, *, actor: Any = None, reason: str = "") -> None:
    """Let no failure of this group be retried by itself: its tasks die at once, with a letter.

    Raises GroupNotFound, GroupHasMoved (held already), PermissionDenied.
    """
    require(actor, MAY_HOLD)
    group = _locked(fingerprint)
    if not holds.hold(fingerprint):
        raise GroupHasMoved("Its retries are held already.")
    audit.record("hold", group, actor=actor, reason=checked(reason), before={"held": False}, after={"held": True})


@transaction.atomic
def release(fingerprint: str, *, actor: Any = None, reason: str = "") -> None:
    """End a hold. Raises GroupNotFound, GroupHasMoved (not held), PermissionDenied."""
    require(actor, MAY_HOLD)
    group = _locked(fingerprint)
    if not holds.release(fingerprint):
        raise GroupHasMoved("Its retries are not held.")
    audit.record("release", group, actor=actor, reason=checked(reason), before={"held": True}, after={"held": False})


@contextmanager
def _changing(action: str, fingerprint: str, actor: Any, reason: str) -> Iterator[FailureGroup]:
    require(actor, MAY_CHANGE)
    reason = checked(reason)
    with transaction.atomic():
        group = _locked(fingerprint)
        before, was = _shown(group), group.state
        yield group
        if group.state != was:
            group.state_changed_at = Now()
        group.save(update_fields=[*CHANGED, "state_changed_at"])
        audit.record(action, group, actor=actor, reason=reason, before=before, after=_shown(group))
        group.refresh_from_db()


def _locked(fingerprint: str) -> FailureGroup:
    group = FailureGroup.objects.select_for_update(of=("self",), no_key=True).filter(pk=storable(fingerprint)).first()
    if group is None:
        raise GroupNotFound()
    return group


def _move(group: FailureGroup, target: str) -> None:
    if target not in group_states.TRANSITIONS[group.state]:
        raise GroupHasMoved(f"The group is {group_states.WORDS[group.state]} already.")
    group.state, group.snoozed_until, group.snooze_after = target, None, None


def _unfolded(group: FailureGroup) -> int:
    """Deaths that its count does not hold yet; as the row is locked, none of them is folded in meanwhile."""
    died = GroupTally.objects.filter(group_id=group.pk).aggregate(died=Sum("died"))["died"]
    return died or 0


def _staff(name: str) -> Any:
    person = get_user_model()._default_manager.filter(username=storable(name), is_active=True, is_staff=True).first()
    if person is None:
        raise InvalidRequest(f"There is no operator {name[:150]!r}.", param="owner")
    return person


def _shown(group: FailureGroup) -> dict[str, Any]:
    return {name: str(value) if (value := getattr(group, name)) is not None else None for name in CHANGED}
