"""Why somebody decides: what is kept of the words that were given, wherever they were typed."""

from apps.core.errors import InvalidRequest

MOST = 500  # characters


def checked(reason: str, *, needed: str = "") -> str:
    """A reason as it is kept. Raises InvalidRequest where it is too long, or is empty and `needed` says what is."""
    reason = written(reason)
    if needed and not reason:
        raise InvalidRequest(needed, param="reason")
    if len(reason) > MOST:
        raise InvalidRequest(f"A reason has at most {MOST} characters.", param="reason")
    return reason


def written(text: str) -> str:
    """A text of a person without what cannot be printed or stored, and without space around it."""
    return "".join(char for char in text if char.isprintable() or char.isspace()).strip()
