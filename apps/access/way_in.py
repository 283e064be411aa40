"""What every way in reads of a request about its caller."""

from django.http import HttpRequest

from apps.access.authentication import Caller, authenticate
from apps.core import request_context
from apps.core.errors import InvalidRequest

MAX_END_USER = 256


async def identify(authorization: str) -> Caller:
    """The caller that a request's Authorization header names. Raises as authenticate."""
    scheme, _, secret = authorization.partition(" ")
    context = request_context.current()
    caller = await authenticate(secret.strip() if scheme.lower() == "bearer" else None, address=context.address)
    context.caller = caller
    context.log_fields["key"] = caller.key_prefix
    return caller


def caller_of(request: HttpRequest) -> Caller:
    """The caller that authentication found."""
    caller: Caller = request.auth  # type: ignore[attr-defined]
    return caller


def end_user_of(request: HttpRequest) -> str:
    """X-User-ID, or empty. Raises InvalidRequest."""
    return end_user(request.META.get("HTTP_X_USER_ID", ""))


def end_user(header: str) -> str:
    """The value of an X-User-ID header, read as Latin-1. Raises InvalidRequest."""
    try:
        found = header.encode("latin-1").decode()  # servers read headers as Latin-1, clients send UTF-8
    except UnicodeError:
        raise InvalidRequest("X-User-ID is not UTF-8.", param="X-User-ID") from None
    if len(found) > MAX_END_USER or not found.isprintable():
        raise InvalidRequest(f"X-User-ID may have {MAX_END_USER} printable characters.", param="X-User-ID")
    return found
