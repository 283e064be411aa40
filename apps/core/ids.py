"""Makes the identifiers that clients see: sortable, unguessable enough to be unique, safe in URLs and logs."""

import re
from uuid import UUID

import uuid_utils
from uuid_utils.compat import uuid7

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def new_uuid() -> UUID:
    """A UUID version 7 (RFC 9562): its order is its age."""
    return uuid7()


def first_uuid(seconds: float) -> UUID:
    """What no UUID version 7 of this moment, in unix seconds, is less than."""
    return UUID(int=max(0, int(seconds * 1000)) << 80)


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
