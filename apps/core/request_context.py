"""What one request knows of itself (id, clock, caller, upstream) wherever the code is, and the headers it shows.

`RequestContextMiddleware` is plain ASGI and wraps both sides, the API and the admin, so that every reply carries
`x-request-id` and `redrive-overhead-ms`, whoever made it.
"""

import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from apps.core import ids

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(slots=True)
class RequestContext:
    """One request. Times are seconds of the monotonic clock; `upstream_seconds` is time spent waiting on providers."""

    request_id: str
    address: str = ""
    status: int = 499  # of the reply; 499 while none has begun, and for clients that left before
    started: float = field(default_factory=time.monotonic)
    upstream_seconds: float = 0.0
    reply_headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    log_fields: dict[str, Any] = field(default_factory=dict)
    caller: Any = None  # access.authentication.Caller once the key is known
    booked: Any = None  # completions.ledger.Entry of the last upstream request

    def elapsed_ms(self) -> float:
        """Milliseconds since the request's start."""
        return (time.monotonic() - self.started) * 1000


_current: ContextVar[RequestContext | None] = ContextVar("redrive_request", default=None)


def current() -> RequestContext:
    """The running request's context; outside of a request a fresh one that nobody else sees."""
    return _current.get() or RequestContext(ids.request_id())


def current_or_none() -> RequestContext | None:
    """The running request's context, or None outside of a request."""
    return _current.get()


def enter(context: RequestContext) -> None:
    """Make `context` the running request's; for ways in that are not HTTP requests (commands, tasks)."""
    _current.set(context)


_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


class RequestContextMiddleware:
    """ASGI: opens a RequestContext, adds its headers when the reply (or the websocket) starts, and tells `on_end`.

    on_end: called with the scope and the context when the reply has ended or the client has left.
    """

    def __init__(
        self, app: ASGIApp, *, trusted_proxies: int = 0, on_end: Callable[[Scope, RequestContext], None] | None = None
    ) -> None:
        self.app = app
        self.trusted_proxies = trusted_proxies
        self.on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        proposed = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), None)
        context = RequestContext(ids.request_id(proposed), self._address(scope))
        _current.set(context)

        async def send_with_headers(message: Message) -> None:
            if message["type"] in _STARTS:
                context.status = message.get("status", 101)
                overhead = context.elapsed_ms() - context.upstream_seconds * 1000
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", context.request_id.encode()),
                    (b"redrive-overhead-ms", b"%.2f" % max(0.0, overhead)),
                    *((name.encode(), value.encode("latin-1")) for name, value in context.reply_headers.items()),
                ]
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            if self.on_end is not None:
                self.on_end(scope, context)

    def _address(self, scope: Scope) -> str:
        """The client's address; behind trusted proxies the one that the outermost of them saw."""
        if self.trusted_proxies:
            forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
            hops: list[str] = [hop.strip() for line in forwarded for hop in line.split(",")]
            if len(hops) >= self.trusted_proxies:
                return hops[-self.trusted_proxies]
        client = scope.get("client")
        return str(client[0]) if client else ""
