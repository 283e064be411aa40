"""What a running answer produces can be read along, whatever becomes of Redis meanwhile."""

import asyncio
from uuid import uuid4

from redis import Redis

from apps.completions import stream_log
from apps.completions.stream_log import Writer
from tests.stores import NOBODY_LISTENS, PointRedisAt


def a_log() -> str:
    """The name of a log of its own."""
    return stream_log.key(uuid4().hex, 1)


async def test_entries_are_numbered_from_one_and_read_after_any_of_them(valkey: Redis) -> None:
    name = a_log()
    writer = Writer(name)
    writer.append({"type": "progress", "progress": 1})
    writer.text("a", 1)
    writer.append({"type": "progress", "progress": 2})
    await writer.close()
    assert await stream_log.read(name) == [
        (1, {"type": "progress", "progress": 1}),
        (2, {"type": "text", "choice": 1, "text": "a"}),
        (3, {"type": "progress", "progress": 2}),
    ]
    assert [number for number, _ in await stream_log.read(name, 2)] == [3]
    assert await stream_log.read(name, 3) == []
    assert 0 < valkey.ttl(name) <= stream_log.KEPT


async def test_pieces_that_wait_together_become_one_entry_a_choice(valkey: Redis) -> None:
    name = a_log()
    writer = Writer(name)
    for text, choice in (("a", 0), ("b", 0), ("x", 1), ("c", 0)):
        writer.text(text, choice)
    await writer.close()
    assert [(entry["choice"], entry["text"]) for _, entry in await stream_log.read(name)] == [
        (0, "ab"), (1, "x"), (0, "c"),
    ]  # fmt: skip


async def test_pieces_are_there_soon_without_a_close(valkey: Redis) -> None:
    name = a_log()
    writer = Writer(name)
    writer.text("now")
    async with asyncio.timeout(3):
        while not await stream_log.read(name):
            await asyncio.sleep(0.01)


async def test_an_append_whose_answer_was_lost_is_repeated_without_doubles(valkey: Redis) -> None:
    name = a_log()
    writer = Writer(name)
    writer.text("once")
    writer._give_numbers()
    numbered = dict(writer._numbered)
    await writer._write()
    writer._numbered.update(numbered)
    writer.text("more")
    await writer.close()
    assert [entry["text"] for _, entry in await stream_log.read(name)] == ["once", "more"]


async def test_a_lone_surrogate_and_nul_are_kept(valkey: Redis) -> None:
    name = a_log()
    writer = Writer(name)
    writer.text("\ud800\0")
    await writer.close()
    assert [entry["text"] for _, entry in await stream_log.read(name)] == ["\ud800\0"]


async def test_a_log_is_bounded_and_says_so(valkey: Redis) -> None:
    name = a_log()
    writer = Writer(name)
    for number in range(6):
        writer.append({"type": "text", "choice": number, "text": "x" * (stream_log.MAX_BYTES // 4)})
    await writer.close()
    entries = await stream_log.read(name)
    assert [entry["type"] for _, entry in entries] == ["text", "text", "text", "truncated"]


async def test_without_redis_nobody_is_hurt(point_redis_at: PointRedisAt) -> None:
    point_redis_at(NOBODY_LISTENS)
    name = a_log()
    writer = Writer(name)
    writer.text("lost")
    await writer.close()
    assert await stream_log.read(name) == []
