"""The lean handler: bodies, clients that leave, streams that end."""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path

from apps.core import errors, json_codec, request_context
from apps.core.lean_asgi import DRAIN, PARSE_IN_THREAD, ByteStreamResponse, LeanASGIHandler
from apps.core.request_context import Message, RequestContext

LIMIT = 1_000_000
View = Callable[[HttpRequest], Awaitable[Any]]


class Client:
    """One connection: what it will send, what it got, and when it leaves."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = list(parts) or [b""]
        self.taken = 0
        self.sent: list[Message] = []
        self.gone = asyncio.Event()
        self.slow: asyncio.Event | None = None

    async def receive(self) -> Message:
        if self.taken < len(self.parts):
            self.taken += 1
            more = self.taken < len(self.parts)
            return {"type": "http.request", "body": self.parts[self.taken - 1], "more_body": more}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if self.slow is not None and message["type"] == "http.response.body":
            await self.slow.wait()

    @property
    def status(self) -> int:
        found: int = self.sent[0]["status"]
        return found

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])


async def nothing() -> None:
    return None


async def run(
    view: View,
    client: Client,
    method: str = "POST",
    before_reply: Callable[[], Awaitable[None]] = nothing,
    headers: Any = (),
    **options: Any,
) -> None:
    """Serve one request of the client by the view, at /here."""

    class urls:
        urlpatterns = [path("here", view)]

    handler = LeanASGIHandler(max_body=LIMIT, before_reply=before_reply, **options)
    request_context.enter(RequestContext("req_test"))
    scope = {"type": "http", "method": method, "path": "/here", "headers": headers, "query_string": b"", "client": None}
    with override_settings(ROOT_URLCONF=urls):
        await handler(scope, client.receive, client.send)


async def echo(request: HttpRequest) -> HttpResponse:
    """The body's length."""
    return HttpResponse(str(len(request.body)))


async def test_a_body_in_pieces_is_whole() -> None:
    client = Client(b"a" * 10, b"", b"b" * 5)
    await run(echo, client)
    assert (client.status, client.body) == (200, b"15")


async def test_a_body_of_just_the_limit_passes() -> None:
    client = Client(b"x" * LIMIT)
    await run(echo, client)
    assert client.body == str(LIMIT).encode()


async def test_a_body_beyond_the_limit_is_read_to_its_end_and_refused() -> None:
    client = Client(*[b"x" * 500_000] * 5)
    await run(echo, client)
    assert client.status == 413
    assert client.taken == 5
    inner = json.loads(client.body)["error"]
    assert (inner["code"], inner["details"]) == ("payload_too_large", {"max_bytes": LIMIT})


async def test_an_endless_body_is_read_so_far_and_no_further() -> None:
    client = Client(*[b"x" * 1_000_000] * (DRAIN // 1_000_000 + 50))
    await run(echo, client)
    assert client.status == 413


async def test_a_client_that_leaves_within_its_body_is_not_answered() -> None:
    client = Client()

    async def receive() -> Message:
        if client.taken:
            return {"type": "http.disconnect"}
        client.taken = 1
        return {"type": "http.request", "body": b"x", "more_body": True}

    client.receive = receive  # type: ignore[method-assign]
    await run(echo, client)
    assert client.sent == []


async def test_a_client_that_leaves_cancels_the_view() -> None:
    client, ended = Client(), asyncio.Event()

    async def view(_: HttpRequest) -> HttpResponse:
        client.gone.set()
        try:
            await asyncio.sleep(10)
        finally:
            ended.set()
        return HttpResponse()

    async with asyncio.timeout(2):
        await run(view, client)
    assert ended.is_set()
    assert client.sent == []
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_server_that_stops_is_not_mistaken_for_a_client_that_leaves() -> None:
    async def view(_: HttpRequest) -> HttpResponse:
        await asyncio.sleep(10)
        return HttpResponse()

    task = asyncio.create_task(run(view, Client()))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(("size", "elsewhere"), [(100, False), (PARSE_IN_THREAD + 1, True)])
async def test_a_large_body_is_parsed_off_the_loop(size: int, elsewhere: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    real = json_codec.loads_strict

    def noting(raw: bytes) -> Any:
        threads.append(threading.current_thread())
        return real(raw)

    monkeypatch.setattr(json_codec, "loads_strict", noting)
    seen: list[Any] = []

    async def view(request: HttpRequest) -> HttpResponse:
        seen.append(getattr(request, "parsed_json", None))
        return HttpResponse()

    await run(view, Client(json.dumps({"a": "x" * size}).encode()))
    assert bool(threads and threads[0] is not threading.main_thread()) is elsewhere
    assert (seen[0] == {"a": "x" * size}) is elsewhere


class Pieces:
    """A stream that notes its end."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.released = False

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        try:
            for number in range(1000):
                yield b"%d " % number
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
            self.ended.set()

    async def release(self) -> None:
        self.released = True


async def test_a_stream_is_sent_piece_by_piece_and_ended() -> None:
    client, pieces = Client(), Pieces()

    async def view(_: HttpRequest) -> ByteStreamResponse:
        return ByteStreamResponse(pieces(), release=pieces.release)

    await run(view, client)
    assert len(client.sent) == 1002
    assert client.sent[-1] == {"type": "http.response.body", "body": b""}
    assert pieces.ended.is_set()
    assert pieces.released


async def test_a_client_that_leaves_before_the_first_piece_releases_what_feeds_it() -> None:
    client, pieces = Client(), Pieces()

    async def view(_: HttpRequest) -> ByteStreamResponse:
        client.gone.set()
        await asyncio.sleep(0)
        return ByteStreamResponse(pieces(), release=pieces.release)

    async def waiting() -> None:
        await asyncio.sleep(60)

    await run(view, client, before_reply=waiting)
    assert client.sent == []
    assert pieces.released


async def test_a_client_that_leaves_while_it_reads_slowly_ends_the_stream() -> None:
    client, pieces = Client(), Pieces()
    client.slow = asyncio.Event()

    async def view(_: HttpRequest) -> ByteStreamResponse:
        return ByteStreamResponse(pieces(), release=pieces.release)

    task = asyncio.create_task(run(view, client))
    async with asyncio.timeout(2):
        while len(client.sent) < 2:
            await asyncio.sleep(0.01)
        client.gone.set()
        await task
    assert pieces.ended.is_set()


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (errors.Conflict(), 409, "conflict"),
        (KeyError("x"), 500, "internal_error"),
        (TimeoutError(), 503, "service_unavailable"),
    ],
)
async def test_an_error_becomes_the_one_body(raised: Exception, status: int, code: str) -> None:
    async def view(_: HttpRequest) -> HttpResponse:
        raise raised

    client = Client()
    await run(view, client)
    inner = json.loads(client.body)["error"]
    assert (client.status, inner["code"], inner["request_id"]) == (status, code, "req_test")
