"""The errors of triage, as leaves of the tree in core/errors.py."""

from apps.core.errors import Conflict, NotFound


class LetterNotFound(NotFound):
    default_message = "There is no such dead letter."


class LetterIsDecided(Conflict):
    default_message = "Somebody has decided on this dead letter already."
