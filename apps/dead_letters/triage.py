"""What people decide about dead letters. One conditional UPDATE each: of two operators one wins, and is told so.

actor: a Django user who must be permitted, or None for the command line.
"""

from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from apps.access import audit
from apps.access.permissions import require
from apps.core.errors import InvalidRequest
from apps.dead_letters import states
from apps.dead_letters.errors import LetterIsDecided, LetterNotFound
from apps.dead_letters.models import DeadLetter
from apps.tasks.lifecycle.revive import revive

MAY_TRIAGE = "dead_letters.change_deadletter"


@transaction.atomic
def redrive(letter_id: UUID, *, actor: Any = None, reason: str = "") -> DeadLetter:
    """Put the letter's task back to work. Raises LetterNotFound, LetterIsDecided, PermissionDenied."""
    require(actor, MAY_TRIAGE)
    # The task before its letter: that is the order in which all lock. Who is too late undoes it with the exception.
    revived = revive(list(DeadLetter.objects.filter(pk=letter_id).values_list("task_id", flat=True)))
    letter = _decide(letter_id, states.OPEN, states.REDRIVEN, actor=actor, reason=reason, action="redrive")
    if not revived:
        raise LetterIsDecided("The task is not dead any more.")
    return letter


@transaction.atomic
def discard(letter_id: UUID, *, actor: Any = None, reason: str) -> DeadLetter:
    """Decide that the task will not run again.

    Raises LetterNotFound, LetterIsDecided, PermissionDenied, and InvalidRequest without a reason.
    """
    require(actor, MAY_TRIAGE)
    if not reason.strip():
        raise InvalidRequest("Say why it is discarded.", param="reason")
    return _decide(letter_id, states.OPEN, states.DISCARDED, actor=actor, reason=reason, action="discard")


def _decide(letter_id: UUID, source: str, target: str, *, actor: Any, reason: str, action: str) -> DeadLetter:
    moved = DeadLetter.objects.filter(pk=letter_id, state=source).update(
        state=target,
        decided_at=Now(),
        decided_by=actor.get_username() if actor is not None else "command line",
        reason=reason,
    )
    letter = DeadLetter.objects.filter(pk=letter_id).first()
    if letter is None:
        raise LetterNotFound()
    if not moved:
        raise LetterIsDecided(f"This dead letter is {letter.state} already.")
    audit.record(action, letter, actor=actor, reason=reason, before={"state": source}, after={"state": target})
    return letter
