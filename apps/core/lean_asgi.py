"""Serves the API without Django's middleware, signals and per-request threads: about a tenth of the stock cost.

Stock Django starts two threads for each async request (receivers of `request_started`, closing of the response)
and runs seven middleware; the API needs neither. The admin and DRF stay on Django's own handler.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from inspect import iscoroutinefunction
from io import BytesIO
from typing import Any

import structlog
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.http import HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase
from django.urls import ResolverMatch, resolve, set_script_prefix

from apps.core import error_payload, errors, json_codec, request_context
from apps.core.request_context import Receive, Scope, Send

log = structlog.get_logger(__name__)

DRAIN = 20 * 1024 * 1024  # bytes of a refused body still read, so that the client sees the answer and not a reset
LOOK_AFTER = 0.05  # seconds
STALL = 60.0  # seconds a client may take to send its body, or to take a part of a reply
PARSE_IN_THREAD = 256 * 1024  # bytes from which JSON is parsed off the loop


AsyncView = Callable[..., Awaitable[HttpResponseBase]]


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


class LeanASGIHandler(ASGIHandler):
    """Django's URL resolver and views, nothing around them. Errors become the one body, whoever raised them."""

    def __init__(
        self,
        *,
        max_body: int,
        before_reply: Callable[[], Awaitable[None]],
        before_body: Callable[[Scope], Awaitable[None]] | None = None,
        stall: float = STALL,
    ) -> None:
        """max_body: bytes of a request. before_reply: awaited before each reply, to add to its headers. before_body:
        awaited before a body of more than 256 kB, or of a size that is not said, is kept; raises to refuse it."""
        super().__init__()
        self.max_body = max_body
        self.before_body = before_body
        self.stall = stall
        self.before_reply = before_reply
        self._views: dict[str, tuple[AsyncView, ResolverMatch]] = {}

    def load_middleware(self, is_async: bool = False) -> None:
        """There is none."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        watch = _Watch(receive, self.stall)
        try:
            body = await self._receive_body(scope, receive, watch)
            if isinstance(body, errors.RedriveError):
                await self._send(render(body), send, watch)
            else:
                await self._send(await self._respond(scope, body), send, watch)
        except ClientGone:
            pass
        except asyncio.CancelledError:
            if not watch.client_left:
                raise
            watch.work.uncancel()
        finally:
            watch.end()

    async def _respond(self, scope: Scope, body: bytes) -> HttpResponseBase:
        if root_path := scope.get("root_path"):
            set_script_prefix(root_path)
        request = ASGIRequest(scope, BytesIO(body))
        request._body = body
        if len(body) > PARSE_IN_THREAD:
            request.parsed_json = await asyncio.to_thread(_parse_or_none, body)  # type: ignore[attr-defined]
        return await self._get_answer(request)

    async def _get_answer(self, request: ASGIRequest) -> HttpResponseBase:
        try:
            view, match = self._find_view(request)
            response = await view(request, *match.args, **match.kwargs)
        except Exception as error:
            response = respond_to(error)
        if isinstance(response, HttpResponseNotAllowed):
            allowed = response["Allow"]
            response = render(errors.MethodNotAllowed(f"This address answers to {allowed} only."))
            response["Allow"] = allowed
        try:
            await self.before_reply()
        except BaseException:
            await _release(response)
            raise
        return response

    def _find_view(self, request: ASGIRequest) -> tuple[AsyncView, ResolverMatch]:
        """The view of an address, as a coroutine function; Django is asked once where no part of it varies."""
        found = self._views.get(request.path_info)
        if found is None:
            match = resolve(request.path_info)
            view = match.func if iscoroutinefunction(match.func) else partial(asyncio.to_thread, match.func)
            found = (view, match)
            if not match.kwargs and not match.args:
                self._views[request.path_info] = found
        request.resolver_match = found[1]
        return found

    async def _receive_body(self, scope: Scope, receive: Receive, watch: "_Watch") -> bytes | errors.RedriveError:
        most, refusal = self.max_body, None
        try:
            if self.before_body is not None and _may_be_large(scope):
                await self.before_body(scope)
        except Exception as error:
            most, refusal = 0, error_of(error)  # it is drained, so that the client sees the answer
        try:
            body = await self._read(receive, most, watch)
        except errors.RedriveError as error:
            return refusal or error
        finally:
            watch.body_is_read()
        return refusal or body

    async def _read(self, receive: Receive, most: int, watch: "_Watch") -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            watch.waiting_since = watch.loop.time()
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            size += len(part)
            if size <= most:
                parts.append(part)
            elif size > DRAIN:
                break
            if not message.get("more_body", False):
                break
        if size > most:
            raise errors.PayloadTooLarge(
                f"The body may have {self.max_body} bytes.", details={"max_bytes": self.max_body}
            )
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _send(self, response: HttpResponseBase, send: Send, watch: "_Watch") -> None:
        headers = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in response.items()]
        try:
            if not isinstance(response, ByteStreamResponse):
                headers.append((b"content-length", str(len(response.content)).encode()))  # type: ignore[attr-defined]
            await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
            if isinstance(response, ByteStreamResponse):
                async for part in response.parts:
                    watch.waiting_since = watch.loop.time()
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                    watch.waiting_since = None
                await send({"type": "http.response.body", "body": b""})
            else:
                await send({"type": "http.response.body", "body": response.content})  # type: ignore[attr-defined]
        except asyncio.CancelledError:
            if isinstance(response, ByteStreamResponse) and not watch.client_left:
                await send({"type": "http.response.body", "body": response.last_words()})
            raise
        finally:
            await _release(response)


def _may_be_large(scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return not value.isdigit() or int(value) > PARSE_IN_THREAD
        if name == b"transfer-encoding":
            return True
    return False


class ByteStreamResponse(HttpResponseBase):
    """A response whose bytes come from an async generator, without the two generators Django would wrap around it.

    release: frees what feeds the parts; awaited in any case, also where the client left before the first part.
    last_words: made and sent where the server itself, which stops, ends the response early.
    """

    streaming = True

    def __init__(
        self,
        parts: AsyncGenerator[bytes, None],
        *,
        release: Callable[[], Awaitable[None]],
        last_words: Callable[[], bytes] = bytes,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.parts = parts
        self.release = release
        self.last_words = last_words


async def _release(response: HttpResponseBase) -> None:
    if isinstance(response, ByteStreamResponse):
        await response.parts.aclose()
        await response.release()


def respond_to(error: Exception) -> HttpResponse:
    """The answer to any exception; one that is a bug of ours is logged with its traceback."""
    return render(error_of(error))


def error_of(error: Exception) -> errors.RedriveError:
    """The answer that an exception stands for; see `respond_to`."""
    known = error_payload.translate(error)
    if known is None:
        log.error("unhandled_error", exc_info=error)
        known = errors.InternalError()
    return known


def render(error: errors.RedriveError) -> HttpResponse:
    """The one error body as a response."""
    body = json_codec.dumps(error_payload.payload(error, request_context.current().request_id))
    return HttpResponse(
        body, status=error.status, content_type="application/json", headers=error_payload.headers(error)
    )


def _parse_or_none(body: bytes) -> Any:
    # A body that does not parse is parsed again, and refused, by the one that reports it.
    try:
        return json_codec.loads_strict(body)
    except ValueError:
        return None


class _Watch:
    """Cancels the work, and with it the call to the provider, when the client leaves.

    It begins to look after 50 ms: a quick reply, which is over by then, need not pay for a task of its own. A client
    that sends nothing of its body, or takes nothing of its reply, for `stall` seconds has left, too.
    """

    def __init__(self, receive: Receive, stall: float) -> None:
        work = asyncio.current_task()
        assert work is not None
        self.work = work
        self.client_left = False
        self.loop = asyncio.get_running_loop()
        self.waiting_since: float | None = None  # for the client, by the loop's clock
        self._body_is_read = False
        self._receive = receive
        self._stall = stall
        self._looking: asyncio.Task[None] | None = None
        self._timer = self.loop.call_later(LOOK_AFTER, self._look)

    def body_is_read(self) -> None:
        """From now on the next message can only be the end of the connection."""
        self._body_is_read = True
        self.waiting_since = None

    def end(self) -> None:
        """Stop looking."""
        self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()

    def _look(self) -> None:
        now = self.loop.time()
        if self.waiting_since is not None and now - self.waiting_since >= self._stall:
            self._leave()
            return
        if self._looking is None and self._body_is_read:
            self._looking = self.loop.create_task(self._until_gone())
        # While a body comes, soon again, to begin to look when it is there.
        pause = LOOK_AFTER if self._looking is None else self._stall / 4
        self._timer = self.loop.call_later(min(pause, self._stall), self._look)

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        self.client_left = True
        self.work.cancel()
