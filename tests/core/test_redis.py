"""The pipe to Redis: pipelined, in order, and never longer than its timeout."""

import asyncio
import time
from typing import Any

import pytest
from redis import Redis

from apps.core.redis import RETRY_AFTER, RedisAway, Script, ScriptPipe, client
from tests.journeys.wire import eventually
from tests.races import together
from tests.redis_servers import echo, redis_server, silent
from tests.stores import NOBODY_LISTENS

TELL = Script("return ARGV[1]")


@pytest.fixture
def url(settings: Any, valkey: Redis) -> str:
    """The real Valkey's URL."""
    found: str = settings.REDRIVE.redis_url
    return found


async def test_a_thousand_calls_at_once_get_their_own_answers(url: str) -> None:
    pipe = ScriptPipe(url, timeout=5)
    answers = await asyncio.gather(*(pipe.run(TELL, [], [number]) for number in range(1000)))
    assert answers == [str(number).encode() for number in range(1000)]


async def test_calls_of_one_turn_share_one_write() -> None:
    async with redis_server(echo) as server:
        pipe = ScriptPipe(server.url, timeout=2)
        await pipe.command("PING")
        writes: list[bytes] = []
        assert pipe._connection is not None
        transport: Any = pipe._connection.transport
        pipe._connection.transport = _Counting(transport, writes)  # type: ignore[assignment]
        await asyncio.gather(*(pipe.command("ECHO", str(number)) for number in range(50)))
        assert len(writes) == 1
        transport.abort()


def test_a_connection_ends_with_its_loop(url: str, valkey: Redis) -> None:
    pipe = ScriptPipe(url, timeout=5)
    number = asyncio.run(pipe.command("CLIENT", "ID"))
    assert eventually(lambda: valkey.client_list(client_id=[number]) == [], within=5)


class _Counting:
    """A transport that notes what is written."""

    def __init__(self, transport: Any, writes: list[bytes]) -> None:
        self._transport, self._writes = transport, writes

    def write(self, data: bytes) -> None:
        self._writes.append(data)
        self._transport.write(data)

    def abort(self) -> None:
        self._transport.abort()


async def test_a_script_that_redis_forgot_is_sent_again(url: str, valkey: Redis) -> None:
    pipe = ScriptPipe(url, timeout=5)
    assert await pipe.run(TELL, [], ["a"]) == b"a"
    valkey.script_flush()
    assert await asyncio.gather(*(pipe.run(TELL, [], [letter]) for letter in "bcd")) == [b"b", b"c", b"d"]


async def test_a_script_that_fails_is_redis_away(url: str) -> None:
    with pytest.raises(RedisAway, match="boom"):
        await ScriptPipe(url, timeout=5).run(Script("return redis.error_reply('boom')"), [], [])


async def test_a_command_that_redis_refuses_is_redis_away(url: str) -> None:
    with pytest.raises(RedisAway, match="wrong number of arguments"):
        await ScriptPipe(url, timeout=5).command("HGETALL")


async def test_the_database_of_the_url_is_the_one_that_is_used(url: str, valkey: Redis) -> None:
    await ScriptPipe(url, timeout=5).command("SET", "here", "1")
    assert valkey.get("here") == b"1"


@pytest.mark.parametrize("bytes_", [b"\x00\xff\r\n$5", b"", b"x" * 200_000])
async def test_any_bytes_go_there_and_back(url: str, bytes_: bytes) -> None:
    assert await ScriptPipe(url, timeout=5).command("ECHO", bytes_) == bytes_


async def test_a_wrong_password_is_redis_away(url: str) -> None:
    place = url.rsplit("@", 1)[1]
    with pytest.raises(RedisAway, match="WRONGPASS"):
        await ScriptPipe(f"redis://:wrong@{place}", timeout=2).command("PING")


async def test_a_refused_password_leaves_no_connection_open() -> None:
    async def refuse(_: list[bytes]) -> bytes | None:
        return b"-WRONGPASS invalid username-password pair\r\n"

    async with redis_server(refuse) as server:
        pipe = ScriptPipe(server.url.replace("//", "//:wrong@"), timeout=2)
        for _ in range(3):
            pipe._away_until = 0
            with pytest.raises(RedisAway):
                await pipe.command("PING")
        await asyncio.sleep(0.05)
        assert server.accepted == 3
        assert len(server.open) == 0


async def test_nobody_at_the_address_is_redis_away_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(RedisAway):
        await ScriptPipe(NOBODY_LISTENS, timeout=5).command("PING")
    assert time.monotonic() - began < 1


async def test_a_server_that_never_answers_is_away_within_the_timeout_and_then_at_once() -> None:
    async with redis_server(silent) as server:
        pipe = ScriptPipe(f"{server.url.removesuffix('/0')}", timeout=0.2)
        began = time.monotonic()
        with pytest.raises(RedisAway):
            await pipe.command("PING")
        assert 0.15 < time.monotonic() - began < 0.6
        began = time.monotonic()
        for _ in range(50):
            with pytest.raises(RedisAway):
                await pipe.command("PING")
        assert time.monotonic() - began < 0.1


async def test_a_greeting_that_is_never_answered_leaves_no_connection_open() -> None:
    async with redis_server(silent) as server:
        pipe = ScriptPipe(server.url, timeout=0.1)  # with a database: SELECT goes first
        for _ in range(3):
            pipe._away_until = 0
            with pytest.raises(RedisAway):
                await pipe.command("PING")
        await asyncio.sleep(0.05)
        assert server.accepted == 3
        assert len(server.open) == 0


async def test_a_server_that_falls_silent_fails_everything_that_waits() -> None:
    talking = True

    async def answer(command: list[bytes]) -> bytes | None:
        return await echo(command) if talking else None

    async with redis_server(answer) as server:
        pipe = ScriptPipe(server.url, timeout=0.2)
        await pipe.command("PING")
        talking = False
        began = time.monotonic()
        answers = await asyncio.gather(*(pipe.command("PING") for _ in range(20)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {RedisAway}
        assert time.monotonic() - began < 0.6


async def test_it_tries_again_a_second_after_it_was_away(url: str) -> None:
    pipe = ScriptPipe(NOBODY_LISTENS, timeout=2)
    with pytest.raises(RedisAway):
        await pipe.command("PING")
    pipe._address = ScriptPipe(url, timeout=2)._address
    pipe._hello = ScriptPipe(url, timeout=2)._hello
    with pytest.raises(RedisAway):
        await pipe.command("PING")
    pipe._away_until -= RETRY_AFTER
    assert await pipe.command("ECHO", "back") == b"back"


async def test_a_connection_that_the_server_closed_is_made_anew() -> None:
    async with redis_server(echo) as server:
        pipe = ScriptPipe(server.url, timeout=2)
        await pipe.command("PING")
        server.cut()
        await asyncio.sleep(0.05)
        assert await pipe.command("ECHO", "again") == b"again"
        assert server.accepted == 2


async def test_what_waits_when_the_connection_is_lost_fails_at_once() -> None:
    async def answer(command: list[bytes]) -> bytes | None:
        return None if command[0] == b"WAIT" else b"+OK\r\n"

    async with redis_server(answer) as server:
        pipe = ScriptPipe(server.url, timeout=5)
        await pipe.command("PING")
        waiting = [asyncio.ensure_future(pipe.command("WAIT")) for _ in range(3)]
        await asyncio.sleep(0.05)
        server.cut()
        async with asyncio.timeout(1):
            answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(answer) for answer in answers} == {RedisAway}


async def test_a_caller_that_leaves_does_not_shift_the_answers_of_the_others(url: str) -> None:
    pipe = ScriptPipe(url, timeout=5)
    await pipe.command("PING")
    calls = [asyncio.ensure_future(pipe.command("ECHO", str(number))) for number in range(30)]
    await asyncio.sleep(0)
    for call in calls[::3]:
        call.cancel()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for number, answer in enumerate(answers):
        assert isinstance(answer, asyncio.CancelledError) if number % 3 == 0 else answer == str(number).encode()
    assert await pipe.command("ECHO", "next") == b"next"


async def test_calls_that_come_while_it_connects_share_the_connection() -> None:
    async with redis_server(echo) as server:
        pipe = ScriptPipe(server.url, timeout=2)
        answers = await asyncio.gather(*(pipe.command("ECHO", str(number)) for number in range(30)))
        assert answers == [str(number).encode() for number in range(30)]
        assert server.accepted == 1


def test_one_pipe_serves_one_loop_after_another(url: str) -> None:
    pipe = ScriptPipe(url, timeout=5)
    for number in range(3):
        assert asyncio.run(pipe.command("ECHO", str(number))) == str(number).encode()


def test_pipes_of_several_threads_do_not_mix(url: str) -> None:
    def ask(thread: int) -> list[bytes]:
        async def many() -> list[bytes]:
            pipe = ScriptPipe(url, timeout=5)
            return await asyncio.gather(*(pipe.run(TELL, [], [f"{thread}.{number}"]) for number in range(100)))

        return asyncio.run(many())

    assert together(4, ask) == [[f"{thread}.{number}".encode() for number in range(100)] for thread in range(4)]


def test_the_plain_client_gives_up_too(settings: Any) -> None:
    settings.REDRIVE = settings.REDRIVE.model_copy(update={"redis_url": NOBODY_LISTENS})
    with client() as plain, pytest.raises(Exception, match="refused"):
        plain.ping()
