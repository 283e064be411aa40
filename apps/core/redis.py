"""Redis in two forms: `ScriptPipe`, one auto-pipelined connection for the hot scripts, and a plain client.

redis-py costs about 90 us of CPU a round trip on asyncio, this pipe about a quarter (bench/README.md), because
calls of the same loop turn share one write and one read. Everything that is not on the hot path uses redis-py.
"""

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import hiredis
import structlog
from django.conf import settings
from redis import Redis

log = structlog.get_logger(__name__)

RETRY_AFTER = 1.0  # seconds without a try once Redis was found to be away, so that requests do not each wait for it


class RedisAway(Exception):
    """Redis did not answer in time, cannot be reached, or refused the connection."""


class Script:
    """A Lua script and the digest that EVALSHA knows it by."""

    __slots__ = ("digest", "source")

    def __init__(self, source: str) -> None:
        self.source = source.encode()
        self.digest = hashlib.sha1(self.source, usedforsecurity=False).hexdigest().encode()


class _Connection(asyncio.Protocol):
    """One socket; answers come in the order of the commands (RESP2)."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.reader = hiredis.Reader()
        self.pending: deque[tuple[asyncio.Future[Any], float]] = deque()
        self.out: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        while (answer := self.reader.gets()) is not False:
            future, _ = self.pending.popleft()
            if not future.done():
                future.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.fail("the connection was lost")

    def fail(self, why: str) -> None:
        if self.transport is not None:
            self.transport.abort()
            self.transport = None
        while self.pending:
            future, _ = self.pending.popleft()
            if not future.done():
                future.set_exception(RedisAway(why))

    def send(self, packed: bytes, loop: asyncio.AbstractEventLoop) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = loop.create_future()
        if not self.out:
            loop.call_soon(self._write)
        self.out.append(packed)
        self.pending.append((future, loop.time()))
        return future

    def _write(self) -> None:
        if self.transport is not None:
            self.transport.write(b"".join(self.out))
        self.out.clear()


class ScriptPipe:
    """Runs scripts and commands over one connection of the running loop. Every failure is RedisAway.

    url: redis://[:password@]host:port/db. timeout: seconds for an answer, connecting included.
    """

    def __init__(self, url: str, *, timeout: float) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "localhost", parts.port or 6379)
        password, username = unquote(parts.password or ""), unquote(parts.username or "")
        self._hello: list[bytes] = []
        if password:
            self._hello.append(_pack("AUTH", *([username] if username else []), password))
        if parts.path.strip("/"):
            self._hello.append(_pack("SELECT", parts.path.strip("/")))
        self._tls = parts.scheme == "rediss"
        self._timeout = timeout
        self._connection: _Connection | None = None
        self._ends: AsyncGenerator[None, None] | None = None
        self._connecting: asyncio.Lock | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._away_until = 0.0
        self._watching = False

    async def run(self, script: Script, keys: list[str], args: Sequence[str | int | bytes]) -> Any:
        """EVALSHA, and once EVAL where Redis does not know the script. Raises RedisAway."""
        answer = await self._send("EVALSHA", script.digest, len(keys), *keys, *args)
        if isinstance(answer, hiredis.ReplyError) and str(answer).startswith("NOSCRIPT"):
            answer = await self._send("EVAL", script.source, len(keys), *keys, *args)
        return _accept(answer)

    async def command(self, *parts: str | bytes | int) -> Any:
        """One command's answer as hiredis reads it (bytes, int, list, None). Raises RedisAway."""
        return _accept(await self._send(*parts))

    async def _send(self, *parts: str | bytes | int) -> Any:
        loop = asyncio.get_running_loop()
        connection = self._connection
        if connection is None or connection.transport is None or self._loop is not loop:
            connection = await self._connect()
        future = connection.send(_pack(*parts), loop)
        if not self._watching:
            self._watching = True
            loop.call_later(self._timeout / 4, self._watch)
        return await future

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._connecting, self._connection, self._watching = loop, asyncio.Lock(), None, False
        assert self._connecting is not None
        async with self._connecting:
            if self._connection is not None and self._connection.transport is not None:
                return self._connection
            if time.monotonic() < self._away_until:
                raise RedisAway("Redis was away a moment ago")
            connection = _Connection()
            try:
                async with asyncio.timeout(self._timeout):
                    await loop.create_connection(lambda: connection, *self._address, ssl=self._tls or None)
                    for hello in self._hello:
                        answer = await connection.send(hello, loop)
                        if isinstance(answer, hiredis.ReplyError):
                            raise RedisAway(str(answer))
            except (OSError, TimeoutError, RedisAway) as error:
                connection.fail("not connected")
                self._mark_away(str(error) or "no answer in time")
                raise RedisAway(str(error)) from error
            except BaseException:
                connection.fail("not connected")
                raise
            self._ends = _end_with_the_loop(connection)
            await anext(self._ends)
            self._connection = connection
            return connection

    def _watch(self, last_look: bool = False) -> None:
        """Fail everything once the oldest waiting command is over its time: one timer instead of one a call."""
        connection = self._connection
        if connection is None or not connection.pending or self._loop is None:
            self._watching = False
            return
        if self._loop.time() - connection.pending[0][1] > self._timeout:
            if not last_look:
                # A loop that was busy itself runs its timers before it reads: the answer may lie in the socket.
                self._loop.call_later(self._timeout / 10, self._watch, True)
                return
            self._mark_away("no answer in time")
            self._connection = None
            self._watching = False
            connection.fail("no answer in time")
            return
        self._loop.call_later(self._timeout / 4, self._watch)

    def _mark_away(self, why: str) -> None:
        self._away_until = time.monotonic() + RETRY_AFTER
        log.warning("redis_away", why=why)


async def _end_with_the_loop(connection: _Connection) -> AsyncGenerator[None, None]:
    # A loop that shuts down closes the generators that it began: so nobody who runs a loop has to close the pipe.
    try:
        yield
    finally:
        connection.fail("the loop has ended")


def _accept(answer: Any) -> Any:
    if isinstance(answer, hiredis.ReplyError):
        # LOADING, READONLY, OOM, NOAUTH: it is there but cannot serve.
        raise RedisAway(str(answer))
    return answer


def _pack(*parts: str | bytes | int) -> bytes:
    packed: bytes = hiredis.pack_command(parts)  # type: ignore[arg-type]  # its stub knows tuples of one
    return packed


_pipe: ScriptPipe | None = None


def pipe() -> ScriptPipe:
    """The process's pipe, made from the settings."""
    global _pipe
    if _pipe is None:
        _pipe = ScriptPipe(settings.REDRIVE.redis_url, timeout=settings.REDRIVE.redis_timeout)
    return _pipe


def client() -> Redis:
    """A plain blocking client for code off the hot path: the admin, commands, health checks."""
    timeout = settings.REDRIVE.redis_timeout * 2
    return Redis.from_url(settings.REDRIVE.redis_url, socket_timeout=timeout, socket_connect_timeout=timeout)
