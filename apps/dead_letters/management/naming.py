"""Finds what people name on a command line: letters, groups by the first characters, operations."""

from uuid import UUID

from apps.core.database import storable
from apps.core.errors import InvalidRequest
from apps.core.terminal import printable
from apps.dead_letters import queries
from apps.dead_letters.bulk import control
from apps.dead_letters.errors import GroupNotFound, LetterNotFound, OperationNotFound
from apps.dead_letters.models import BulkOperation, DeadLetter, FailureGroup

LEAST = 6  # characters of a fingerprint
SHOWN = 12


def group(text: str) -> FailureGroup:
    """The group whose fingerprint begins so. Raises GroupNotFound, InvalidRequest."""
    if len(text) < LEAST:
        raise InvalidRequest(f"{printable(text)}: give at least the first {LEAST} characters of a group's fingerprint.")
    found = list(FailureGroup.objects.filter(pk__startswith=storable(text.lower()))[:2])
    if not found:
        raise GroupNotFound(f"There is no failure group {printable(text)[:64]}.")
    if len(found) > 1:
        raise InvalidRequest(f"{printable(text)[:64]}: more than one group begins so. Give more characters.")
    return found[0]


def short(fingerprint: str) -> str:
    """The first characters of a fingerprint: enough to name it."""
    return fingerprint[:SHOWN]


def letter(text: str) -> DeadLetter:
    """The letter of `letter_...`, with its group. Raises LetterNotFound."""
    found = DeadLetter.objects.filter(pk=queries.letter_id(text)).prefetch_related("group").first()
    if found is None:
        raise LetterNotFound()
    return found


def operation(text: str) -> BulkOperation:
    """The operation of an id. Raises OperationNotFound."""
    try:
        return control.find(UUID(text))
    except ValueError:
        raise OperationNotFound(f"{printable(text)[:64]} is not the id of a bulk operation.") from None
