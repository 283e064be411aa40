"""Bounds: N calls at once with results in order, and a buffer between a fast upstream and a slow client."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Generic, TypeVar

from apps.core import errors

T = TypeVar("T")
R = TypeVar("R")

CALLS_AT_ONCE = 5
PIECES = 100
STALL = 60.0  # seconds for which a full buffer waits for its reader


async def map_bounded(
    call: Callable[[T], Awaitable[R]], items: Iterable[T], *, at_once: int = CALLS_AT_ONCE
) -> list[R]:
    """`[await call(item) for item in items]` with at most `at_once` running. The first error cancels the rest."""
    gate = asyncio.Semaphore(at_once)
    failed = False

    async def one(item: T) -> R:
        nonlocal failed
        async with gate:
            if failed:  # the place of the one that failed is for nobody
                raise asyncio.CancelledError
            try:
                return await call(item)
            except BaseException:
                failed = True
                raise

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


class Buffer(Generic[T]):
    """Reads a source ahead by at most `size` pieces; a full buffer stops the reading, and so the upstream.

    Take its pieces with `next`; an error of the source is raised after the pieces that came before it. A reader that
    takes none for `stall` seconds, or is not done by `until` (the loop's time), ends the source: what it holds is dear.
    One timer serves a whole stream: timers made and cancelled for each piece cost more than the piece.
    """

    def __init__(
        self,
        source: AsyncGenerator[T, None],
        *,
        size: int = PIECES,
        stall: float = STALL,
        until: float = math.inf,
    ) -> None:
        self._source = source
        self._size = size
        self._stall = stall
        self._until = until
        self._pieces: deque[T] = deque()
        self._error: BaseException | None = None
        self._closing = False
        self._ended = False
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._room = asyncio.Event()
        self._reader = asyncio.ensure_future(self._read())

    async def next(self, wait: float | None = None) -> T | None:
        """The next piece; None when the source has ended. Raises TimeoutError after `wait` seconds of silence."""
        while not self._pieces:
            if self._ended:
                if self._error is not None:
                    raise self._error
                return None
            await self._news(wait)
        piece = self._pieces.popleft()
        self._room.set()
        return piece

    async def close(self) -> None:
        """Stop reading and wait until the reader has let go of the source."""
        if self._timer is not None:
            self._timer.cancel()
        self._closing = True
        self._reader.cancel()
        await asyncio.wait({self._reader})

    async def _read(self) -> None:
        try:
            async for piece in self._source:
                self._pieces.append(piece)
                self._wake()
                while len(self._pieces) >= self._size:
                    self._room.clear()
                    await self._wait_for_room()
        except BaseException as error:
            if not self._closing:
                self._error = error
        finally:
            self._ended = True
            self._wake()
            # Cancelled between two pieces, the source does not know yet that it is over.
            await self._source.aclose()

    async def _wait_for_room(self) -> None:
        try:
            async with asyncio.timeout_at(min(self._loop.time() + self._stall, self._until)):
                await self._room.wait()
        except TimeoutError:
            raise errors.Timeout("The stream was not read in time.") from None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _news(self, wait: float | None) -> None:
        self._waiter = self._loop.create_future()
        self._deadline = None if wait is None else self._loop.time() + wait
        if self._deadline is not None and (self._timer is None or self._timer.when() > self._deadline):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(self._deadline, self._tick)
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _tick(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done() or self._deadline is None:
            return
        if self._loop.time() >= self._deadline:
            self._waiter.set_exception(TimeoutError())
        else:
            self._timer = self._loop.call_at(self._deadline, self._tick)
