"""N calls at once with results in order, and the buffer between a fast source and a slow reader."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from apps.core import errors
from apps.providers.bounded import CALLS_AT_ONCE, PIECES, Buffer, map_bounded


class Source:
    """Counts up; tells how far it was read and whether it was closed."""

    def __init__(self, pieces: int, error: Exception | None = None, then_hang: bool = False) -> None:
        self.given = 0
        self.closed = False
        self._pieces, self._error, self._then_hang = pieces, error, then_hang

    async def __call__(self) -> AsyncIterator[int]:
        try:
            while self.given < self._pieces:
                self.given += 1
                yield self.given
            if self._then_hang:
                await asyncio.Event().wait()
            if self._error is not None:
                raise self._error
        finally:
            self.closed = True


async def test_results_come_in_the_order_of_the_items() -> None:
    async def call(item: int) -> int:
        await asyncio.sleep(0.02 / (item + 1))
        return item * 10

    assert await map_bounded(call, range(8)) == [item * 10 for item in range(8)]
    assert await map_bounded(call, []) == []


@pytest.mark.parametrize("at_once", [1, 3, CALLS_AT_ONCE])
async def test_so_many_run_at_once_and_no_more(at_once: int) -> None:
    running = most = 0

    async def call(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1

    await map_bounded(call, range(12), at_once=at_once)
    assert most == at_once


async def test_the_first_error_cancels_the_rest_and_is_raised_itself() -> None:
    cancelled: list[int] = []

    async def call(item: int) -> None:
        if item == 1:
            raise ValueError("the first")
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            cancelled.append(item)
            raise

    with pytest.raises(ValueError, match="the first"):
        await map_bounded(call, range(10), at_once=3)
    assert {0} <= set(cancelled) <= {0, 2}


async def test_a_cancelled_map_cancels_its_calls() -> None:
    begun = asyncio.Event()
    cancelled: list[int] = []

    async def call(item: int) -> None:
        begun.set()
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            cancelled.append(item)
            raise

    task = asyncio.ensure_future(map_bounded(call, range(4)))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(cancelled) == [0, 1, 2, 3]


async def test_a_full_buffer_stops_the_source_at_a_hundred_pieces() -> None:
    source = Source(1000)
    buffer = Buffer(source())
    await asyncio.sleep(0.05)
    assert source.given == PIECES == 100
    for _ in range(10):
        await buffer.next()
    await asyncio.sleep(0.05)
    assert source.given <= 111
    await buffer.close()


async def test_every_piece_comes_once_and_in_order_and_then_none() -> None:
    buffer = Buffer(Source(250)(), size=3)
    pieces = [await buffer.next(1) for _ in range(252)]
    assert pieces == [*range(1, 251), None, None]


async def test_an_error_comes_after_the_pieces_before_it() -> None:
    buffer = Buffer(Source(3, error=ValueError("broken"))())
    await asyncio.sleep(0.01)
    assert [await buffer.next() for _ in range(3)] == [1, 2, 3]
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            await buffer.next()


async def test_silence_is_told_and_nothing_is_lost_by_it() -> None:
    released = asyncio.Event()

    async def source() -> AsyncIterator[int]:
        yield 1
        await released.wait()
        yield 2

    buffer = Buffer(source())
    assert await buffer.next(1) == 1
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await buffer.next(0.01)
    assert time.monotonic() - began < 0.5
    released.set()
    assert await buffer.next(1) == 2
    assert await buffer.next(1) is None


async def test_closing_ends_a_source_that_waits() -> None:
    source = Source(1, then_hang=True)
    buffer = Buffer(source())
    await buffer.next()
    await buffer.close()
    assert source.closed


async def test_closing_ends_a_source_that_a_full_buffer_holds_back() -> None:
    source = Source(1000)
    buffer = Buffer(source(), size=5)
    await asyncio.sleep(0.01)
    await buffer.close()
    assert source.closed


async def test_closing_twice_is_no_error() -> None:
    buffer = Buffer(Source(3)())
    await buffer.close()
    await buffer.close()


async def test_a_reader_that_stalls_ends_the_source_and_is_told_after_what_it_has() -> None:
    source = Source(1000)
    buffer = Buffer(source(), size=3, stall=0.02)
    async with asyncio.timeout(3):
        await asyncio.wait({buffer._reader})
    assert source.closed
    assert [await buffer.next(1) for _ in range(3)] == [1, 2, 3]
    for _ in range(2):
        with pytest.raises(errors.Timeout):
            await buffer.next(1)


async def test_a_slow_reader_has_no_more_time_than_the_call() -> None:
    source = Source(1000)
    buffer = Buffer(source(), size=3, until=asyncio.get_running_loop().time() + 0.02)
    async with asyncio.timeout(3):
        await asyncio.wait({buffer._reader})
    assert source.closed
