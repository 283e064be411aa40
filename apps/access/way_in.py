"""What every way in reads of a request about its caller."""

from django.http import HttpRequest

from apps.access.authentication import Caller
from apps.core.errors import InvalidRequest

MAX_END_USER = 256


def caller_of(request: HttpRequest) -> Caller:
    """The caller that authentication found."""
    caller: Caller = request.auth  # type: ignore[attr-defined]
    return caller


def end_user_of(request: HttpRequest) -> str:
    """X-User-ID, or empty. Raises InvalidRequest."""
    raw: str = request.META.get("HTTP_X_USER_ID", "")
    try:
        end_user = raw.encode("latin-1").decode()  # Django reads headers as Latin-1, clients send UTF-8
    except UnicodeError:
        raise InvalidRequest("X-User-ID is not UTF-8.", param="X-User-ID") from None
    if len(end_user) > MAX_END_USER or not end_user.isprintable():
        raise InvalidRequest(f"X-User-ID may have {MAX_END_USER} printable characters.", param="X-User-ID")
    return end_user
