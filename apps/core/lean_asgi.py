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
PARSE_IN_THREAD = 256 * 1024  # bytes from which JSON is parsed off the loop


AsyncView = Callable[..., Awaitable[HttpResponseBase]]


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


class LeanASGIHandler(ASGIHandler):
    """Django's URL resolver and views, nothing around them. Errors become the one body, whoever raised them."""

    def __init__(self, *, max_body: int, before_reply: Callable[[], Awaitable[None]]) -> None:
        """max_body: bytes of a request. before_reply: awaited before each reply, to add to its headers."""
        super().__init__()
        self.max_body = max_body
        self.before_reply = before_reply
        self._views: dict[str, tuple[AsyncView, ResolverMatch]] = {}

    def load_middleware(self, is_async: bool = False) -> None:
        """There is none."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        try:
            body: bytes | errors.RedriveError = await self._read(receive)
        except ClientGone:
            return
        except errors.RedriveError as error:
            body = error
        watch = _Watch(receive)
        try:
            if isinstance(body, errors.RedriveError):
                await self._send(render(body), send)
            else:
                await self._send(await self._respond(scope, body), send)
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

    async def _read(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            size += len(part)
            if size <= self.max_body:
                parts.append(part)
            elif size > DRAIN:
                break
            if not message.get("more_body", False):
                break
        if size > self.max_body:
            raise errors.PayloadTooLarge(
                f"The body may have {self.max_body} bytes.", details={"max_bytes": self.max_body}
            )
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _send(self, response: HttpResponseBase, send: Send) -> None:
        headers = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in response.items()]
        try:
            await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
            if isinstance(response, ByteStreamResponse):
                async for part in response.parts:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            else:
                await send({"type": "http.response.body", "body": response.content})  # type: ignore[attr-defined]
        finally:
            await _release(response)


class ByteStreamResponse(HttpResponseBase):
    """A response whose bytes come from an async generator, without the two generators Django would wrap around it.

    release: frees what feeds the parts; awaited in any case, also where the client left before the first part.
    """

    streaming = True

    def __init__(
        self, parts: AsyncGenerator[bytes, None], *, release: Callable[[], Awaitable[None]], **options: Any
    ) -> None:
        super().__init__(**options)
        self.parts = parts
        self.release = release


async def _release(response: HttpResponseBase) -> None:
    if isinstance(response, ByteStreamResponse):
        await response.parts.aclose()
        await response.release()


def respond_to(error: Exception) -> HttpResponse:
    """The answer to any exception; one that is a bug of ours is logged with its traceback."""
    known = error_payload.translate(error)
    if known is None:
        log.error("unhandled_error", exc_info=error)
        known = errors.InternalError()
    return render(known)


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

    It begins to look after 50 ms: a quick reply, which is over by then, need not pay for a task of its own.
    """

    def __init__(self, receive: Receive) -> None:
        work = asyncio.current_task()
        assert work is not None
        self.work = work
        self.client_left = False
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._looking: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(LOOK_AFTER, self._begin)

    def end(self) -> None:
        """Stop looking."""
        self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()

    def _begin(self) -> None:
        self._looking = self._loop.create_task(self._until_gone())

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.client_left = True
        self.work.cancel()
