"""Makes the identifiers that clients see: sortable, unguessable enough to be unique, safe in URLs and logs."""

import re
from datetime import datetime
from uuid import UUID

import uuid_utils
from uuid_utils.compat import uuid7

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def new_uuid() -> UUID:
    """A UUID version 7 (RFC 9562): its order is its age."""
    return uuid7()


def first_of(moment: datetime) -> UUID:
    """The least UUID version 7 of a moment: ids made later are greater."""
    milliseconds = min(max(int(moment.timestamp() * 1000), 0), (1 << 48) - 1)
    return UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62)


def new_hex() -> str:
    """The 32 hexadecimal digits of a UUID version 7, made without Python's slow UUID object."""
    return uuid_utils.uuid7().hex


def request_id(proposed: str | None = None) -> str:
    """The client's own id if it is 1..128 of letters, digits and `._:/+=@-`; else a new `req_...`."""
    if proposed and _SANE_REQUEST_ID.fullmatch(proposed):
        return proposed
    return f"req_{new_hex()}"


def completion_id() -> str:
    """`chatcmpl-` and 32 hexadecimal digits."""
    return f"chatcmpl-{new_hex()}"
