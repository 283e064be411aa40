"""Bounds: N calls at once with results in order, and a buffer between a fast upstream and a slow client."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

CALLS_AT_ONCE = 5
PIECES = 100


async def map_bounded(
    call: Callable[[T], Awaitable[R]], items: Iterable[T], *, at_once: int = CALLS_AT_ONCE
) -> list[R]:
    """`[await call(item) for item in items]` with at most `at_once` running. The first error cancels the rest."""
    gate = asyncio.Semaphore(at_once)

    async def one(item: T) -> R:
        async with gate:
            return await call(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


class Buffer(Generic[T]):
    """Reads a source ahead by at most `size` pieces; a full buffer stops the reading, and so the upstream.

    Iterate it once; an error of the source is raised after the pieces that came before it. `close` stops reading.
    """

    def __init__(self, source: AsyncIterator[T], *, size: int = PIECES) -> None:
        self._source = source
        self._size = size
        self._pieces: deque[T] = deque()
        self._error: BaseException | None = None
        self._ended = False
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._reader = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        try:
            async for piece in self._source:
                self._pieces.append(piece)
                self._changed.set()
                while len(self._pieces) >= self._size:
                    self._room.clear()
                    await self._room.wait()
        except Exception as error:
            self._error = error
        finally:
            self._ended = True
            self._changed.set()

    async def next(self, wait: float | None = None) -> T | None:
        """The next piece; None when the source has ended. Raises TimeoutError after `wait` seconds of silence."""
        while not self._pieces:
            if self._ended:
                if self._error is not None:
                    raise self._error
                return None
            self._changed.clear()
            async with asyncio.timeout(wait):
                await self._changed.wait()
        piece = self._pieces.popleft()
        self._room.set()
        return piece

    async def close(self) -> None:
        """Stop reading and wait until the reader has let go of the source."""
        self._reader.cancel()
        await asyncio.wait({self._reader})
