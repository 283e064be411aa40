"""A client that takes its reply, however slowly, gets it whole; one that takes nothing of it is cut off."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from apps.core.request_context import Receive, Scope, Send
from config.http_protocol import BoundedHTTP

SIZE = 16 * 1024 * 1024  # far above what the kernel's buffers of a connection hold
App = Callable[[Scope, Receive, Send], Awaitable[None]]


async def whole(scope: Scope, receive: Receive, send: Send) -> None:
    """A reply in one piece: the application is done with it before the client has it."""
    headers = [(b"content-length", b"%d" % SIZE)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"x" * SIZE})


async def pieces(scope: Scope, receive: Receive, send: Send) -> None:
    """A stream whose last, empty piece waits for room."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * SIZE, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def serving(app: App) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.Event]]:
    """A client whose request is sent, and an event that is set when the server has dropped the connection."""
    lost, loop = asyncio.Event(), asyncio.get_running_loop()
    config = Config(app, ws="none", lifespan="off", log_config=None)
    config.load()

    class Protocol(BoundedHTTP):
        stall = 0.4

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.setblocking(False)
        server = await loop.create_server(lambda: Protocol(config, ServerState(), {}), sock=listener)
        await loop.sock_connect(client, listener.getsockname())
        reader, writer = await asyncio.open_connection(sock=client, limit=65536)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        try:
            yield reader, lost
        finally:
            writer.close()
            server.close()


@pytest.mark.parametrize("app", [whole, pieces])
async def test_a_client_that_takes_nothing_of_its_reply_is_cut_off(app: App) -> None:
    async with serving(app) as (_, lost), asyncio.timeout(10):
        await lost.wait()


@pytest.mark.parametrize("app", [whole, pieces])
async def test_a_slow_client_gets_its_whole_reply(app: App) -> None:
    async with serving(app) as (reader, _), asyncio.timeout(30):
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(8):  # each pause is shorter than the server's patience, all of them are longer
            await asyncio.sleep(0.1)
            await reader.readexactly(SIZE // 8)
