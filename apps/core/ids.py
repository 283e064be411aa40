"""Makes the identifiers that clients see: sortable, unguessable enough to be unique, safe in URLs and logs."""

import re
import secrets
from uuid import UUID

from uuid_utils.compat import uuid7

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def new_uuid() -> UUID:
    """A UUID version 7 (RFC 9562): its order is its age."""
    return uuid7()


def request_id(proposed: str | None = None) -> str:
    """The client's own id if it is 1..128 of letters, digits and `._:/+=@-`; else a new `req_...`."""
    if proposed and _SANE_REQUEST_ID.fullmatch(proposed):
        return proposed
    return f"req_{uuid7().hex}"


def completion_id() -> str:
    """`chatcmpl-` and 29 letters or digits, as OpenAI's."""
    number = secrets.randbits(172)
    letters = []
    for _ in range(29):
        number, index = divmod(number, 62)
        letters.append(_ALPHABET[index])
    return "chatcmpl-" + "".join(letters)
