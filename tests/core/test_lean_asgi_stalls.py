"""Clients that stall, bodies of strangers, and a server that stops: what the lean handler does about them."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse

from apps.core import errors
from apps.core.lean_asgi import ByteStreamResponse
from apps.core.request_context import Message
from tests.core.test_lean_asgi import Client, echo, nothing, run


async def test_a_large_body_of_a_stranger_is_drained_and_not_kept() -> None:
    seen: list[int] = []

    async def refuse(scope: Any) -> None:
        raise errors.InvalidApiKey()

    async def view(request: HttpRequest) -> HttpResponse:
        seen.append(1)
        return HttpResponse()

    for headers, status in (
        ([(b"content-length", b"900000")], 401),
        ([(b"transfer-encoding", b"chunked")], 401),
        ([(b"content-length", b"x")], 401),
        ([(b"content-length", b"100")], 200),
    ):
        client = Client(*[b"x" * 300] * 3)
        await run(view, client, before_body=refuse, headers=headers)
        assert (client.status, client.taken) == (status, 3)
    assert seen == [1]


async def test_a_body_that_stops_coming_ends_the_request() -> None:
    client = Client(b"x")
    waiting = asyncio.Event()

    async def receive() -> Message:
        if client.taken:
            await waiting.wait()
        client.taken = 1
        return {"type": "http.request", "body": b"x", "more_body": True}

    client.receive = receive  # type: ignore[method-assign]
    async with asyncio.timeout(5):
        await run(echo, client, stall=0.05)
    assert client.sent == []


async def test_a_client_that_takes_nothing_of_its_stream_is_let_go() -> None:
    client, released = Client(), asyncio.Event()
    client.slow = asyncio.Event()

    async def parts() -> AsyncGenerator[bytes, None]:
        while True:
            yield b"x"

    async def release() -> None:
        released.set()

    async def view(_: HttpRequest) -> ByteStreamResponse:
        return ByteStreamResponse(parts(), release=release)

    async with asyncio.timeout(5):
        await run(view, client, stall=0.05)
    assert released.is_set()


async def test_a_server_that_stops_says_so_in_its_streams() -> None:
    client, begun = Client(), asyncio.Event()

    async def parts() -> AsyncGenerator[bytes, None]:
        yield b"first "
        begun.set()
        await asyncio.sleep(10)

    async def view(_: HttpRequest) -> ByteStreamResponse:
        return ByteStreamResponse(parts(), release=nothing, last_words=lambda: b"last")

    serving = asyncio.ensure_future(run(view, client))
    await begun.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert client.body == b"first last"
    assert not client.sent[-1].get("more_body")
