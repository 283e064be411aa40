"""What every way in reads of a request about its caller, and what it does about an Idempotency-Key."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from django.http import HttpRequest, HttpResponse

from apps.access import admission, idempotency, replays
from apps.access.authentication import Caller, authenticate
from apps.access.idempotency import Replay
from apps.core import json_codec, request_context
from apps.core.errors import InvalidRequest

MAX_END_USER = 256

Create = Callable[..., Awaitable[Any]]  # (the caller, the request's body, end_user=) -> the reply's object


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


async def once(request: HttpRequest, payload: Any, create: Create) -> HttpResponse:
    """The answer to a live call with an Idempotency-Key: the first runs, its repetitions are given its reply.

    Raises InvalidRequest, IdempotencyInProgress, IdempotencyKeyReused, ServiceUnavailable, and what `create` raises.
    """
    caller, end_user = caller_of(request), end_user_of(request)
    header = request.META["HTTP_IDEMPOTENCY_KEY"]
    claim = idempotency.claim(caller.project_id, request.path[:64], header, request.body)
    assert claim is not None
    if getattr(payload, "stream", False):
        raise InvalidRequest("A stream cannot be replayed: send no key, or no `stream`.", param="Idempotency-Key")
    begun = await replays.begin(claim)
    if isinstance(begun, Replay):
        # It spends nothing, but it is a request.
        await admission.admit(caller, tokens=0, nusd=0, end_user=end_user, which=admission.AT_ACCEPT)
        return HttpResponse(begun.body, content_type="application/json", headers={"Idempotent-Replayed": "true"})
    try:
        body = json_codec.dumps(await create(caller, payload, end_user=end_user))
    except asyncio.CancelledError:
        replays.let_go(begun)
        raise
    except BaseException:
        await replays.settle(begun, None)
        raise
    await replays.settle(begun, body)
    return HttpResponse(body, content_type="application/json")
