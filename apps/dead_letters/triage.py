"""What people decide about one dead letter. Of two operators one wins, and the other is told so.

actor: a Django user who must be permitted, or None for the command line. A reason is kept with the letter and in the
audit.
"""

import json
from typing import Any, NamedTuple
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from apps.access import audit
from apps.access.permissions import require
from apps.access.reasons import checked
from apps.core.errors import InvalidRequest
from apps.dead_letters import decisions, states
from apps.dead_letters.errors import LetterIsDecided, LetterNotFound, PayloadHasChanged
from apps.dead_letters.models import DeadLetter
from apps.tasks import payloads
from apps.tasks.errors import TaskNotFound

MAY_REDRIVE = "dead_letters.redrive_deadletter"
MAY_DISCARD = "dead_letters.discard_deadletter"
MAY_EDIT = payloads.MAY_EDIT
_TO_REVIEW: dict[str, Any] = {"state": states.OPEN, "reviewed_at__isnull": True}


class Draft(NamedTuple):
    """A payload to edit: JSON text in the kind's present version, made of a stored revision."""

    revision: int
    text: str


@transaction.atomic
def redrive(letter_id: UUID, *, actor: Any = None, reason: str = "") -> DeadLetter:
    """Put the letter's task back to work. Raises LetterNotFound, LetterIsDecided, PermissionDenied."""
    require(actor, MAY_REDRIVE)
    return _one(letter_id, decisions.redrive([letter_id], actor=actor, reason=checked(reason)))


@transaction.atomic
def edit_and_redrive(letter_id: UUID, *, text: str, revision: int, actor: Any = None, reason: str) -> DeadLetter:
    """Redrive the letter's task with other arguments: JSON text, made of the revision that was edited.

    Whoever may edit payloads may do this, without the permission to redrive as it is. What was there before stays as an
    earlier revision. Raises as `redrive`; InvalidRequest (param: the path of the field at fault), PayloadHasChanged.
    """
    require(actor, MAY_EDIT)
    reason = checked(reason, needed="Say why it is edited.")
    letter = _find(letter_id)
    if letter.state != states.OPEN:
        raise LetterIsDecided(f"This dead letter is {letter.state} already.")
    try:
        with transaction.atomic():
            change = payloads.revise(letter.task_id, text=text, revision=revision)
    except TaskNotFound:
        raise LetterIsDecided("Its task is gone, or is not dead any more.") from None
    except payloads.RevisionIsOld:
        raise PayloadHasChanged() from None
    # Where and how long, not what: the words stay with the task, where they are guarded.
    audit.record("edit", letter, actor=actor, reason=reason, before=change.before, after=change.after)
    return _one(letter_id, decisions.redrive([letter_id], actor=actor, reason=reason))


def preview(letter_id: UUID, *, text: str, actor: Any = None) -> str:
    """What an edited payload would change, as a unified diff. Checked, permitted and audited as the edit and the draft.

    Raises as `draft`, and InvalidRequest (param: the path of the field at fault).
    """
    require(actor, MAY_EDIT)
    return payloads.compare(_find(letter_id).task_id, text=text, actor=actor)


def draft(letter_id: UUID, *, actor: Any = None, reason: str = "") -> Draft:
    """The payload to edit. To open it is to look at it: permitted and audited as that is.

    Raises LetterNotFound, LetterIsDecided, PermissionDenied, TaskNotFound.
    """
    require(actor, MAY_EDIT)
    letter = _find(letter_id)
    if letter.state != states.OPEN:
        raise LetterIsDecided(f"This dead letter is {letter.state} already.")
    revision, args = payloads.present(letter.task_id, actor=actor, reason=reason)
    return Draft(revision, json.dumps(args, indent=2, ensure_ascii=True))


@transaction.atomic
def discard(letter_id: UUID, *, actor: Any = None, reason: str, code: str = DeadLetter.DiscardCode.OTHER) -> DeadLetter:
    """Decide that the task will not run again; until retention deletes it, it can be restored. code: a DiscardCode.

    Raises LetterNotFound, LetterIsDecided, PermissionDenied, and InvalidRequest without a reason.
    """
    require(actor, MAY_DISCARD)
    reason = checked(reason, needed="Say why it is discarded.")
    return _one(letter_id, decisions.discard([letter_id], actor=actor, reason=reason, code=discard_code(code)))


@transaction.atomic
def restore(letter_id: UUID, *, actor: Any = None, reason: str = "") -> DeadLetter:
    """Open a discarded letter again. Raises LetterNotFound, LetterIsDecided, PermissionDenied."""
    require(actor, MAY_DISCARD)
    won = decisions.restore([letter_id], actor=actor, reason=checked(reason))
    letter = _find(letter_id)
    if not won:
        gone = letter.state == states.DISCARDED
        raise LetterIsDecided(
            "Its task was deleted by retention." if gone else f"This dead letter is {letter.state}, not discarded."
        )
    return letter


def review(letter_ids: list[UUID], *, actor: Any = None) -> int:
    """Note that open letters were looked at; how many had not been before. Raises PermissionDenied."""
    require(actor, MAY_REDRIVE)
    fresh = DeadLetter.objects.filter(pk__in=letter_ids, state=states.OPEN, reviewed_at__isnull=True)
    return fresh.update(reviewed_at=Now())


@transaction.atomic
def take_for_review(most: int, *, actor: Any = None) -> list[DeadLetter]:
    """Open letters that nobody has reviewed, oldest first, with their groups; they are reviewed once this commits.

    Who takes some at the same time gets others. Raises PermissionDenied.
    """
    rows = DeadLetter.objects.select_for_update(skip_locked=True, of=("self",)).filter(**_TO_REVIEW)
    found = list(rows.order_by("created_at", "id").prefetch_related("group")[:most])
    review([letter.pk for letter in found], actor=actor)
    return found


def waits_for_review() -> bool:
    """Whether an open letter has not been reviewed yet."""
    return DeadLetter.objects.filter(**_TO_REVIEW).exists()


def discard_code(code: str) -> str:
    """A known reason code. Raises InvalidRequest."""
    if code not in DeadLetter.DiscardCode.values:
        raise InvalidRequest(f"It is one of {', '.join(DeadLetter.DiscardCode.values)}.", param="code")
    return code


def _find(letter_id: UUID) -> DeadLetter:
    letter = DeadLetter.objects.filter(pk=letter_id).first()
    if letter is None:
        raise LetterNotFound()
    return letter


def _one(letter_id: UUID, won: set[UUID]) -> DeadLetter:
    """The letter after its move; who has not won undoes the rest of the transaction with the exception."""
    letter = _find(letter_id)
    if letter_id not in won:
        raise LetterIsDecided(
            f"This dead letter is {letter.state} already."
            if letter.state != states.OPEN
            else "The task is not dead any more."
        )
    return letter
