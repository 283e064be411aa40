"""What waits to be read by one client: bounded, written by one task, aware of how long the client reads nothing."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

MAX_FRAMES = 64
MAX_CHARACTERS = 256 * 1024  # or one frame, if that alone is larger


class Outbox:
    """Frames in order. Whoever puts one waits while the box is full, and with it the upstream that it comes from.

    send: writes a frame; it waits while the client's connection takes no more, and raises OSError once that is gone.
    """

    def __init__(self, send: Callable[[str], Awaitable[None]]) -> None:
        self._send = send
        self._frames: deque[str] = deque()
        self._characters = 0
        self._closed = False
        self._blocked_since: float | None = None
        self._loop = asyncio.get_running_loop()
        self._room, self._news = asyncio.Event(), asyncio.Event()
        self._writer = self._loop.create_task(self._write())

    async def put(self, frame: str) -> None:
        """Queue a frame once there is room; drop it if the box is closed."""
        while not self._closed and (len(self._frames) >= MAX_FRAMES or self._characters >= MAX_CHARACTERS):
            self._room.clear()
            await self._room.wait()
        if not self._closed:
            self._add(frame)

    def blocked_for(self) -> float:
        """Seconds for which the connection has taken no more."""
        return 0.0 if self._blocked_since is None else self._loop.time() - self._blocked_since

    async def finish(self, last: str, *, within: float) -> None:
        """Drop what waits, write `last` if the client reads within so many seconds, and close."""
        if not self._closed:
            self._frames.clear()
            self._add(last)
            self._close()
            await asyncio.wait({self._writer}, timeout=within)
        await self.close()

    async def close(self) -> None:
        """Write nothing more; free those who wait for room."""
        self._close()
        self._writer.cancel()
        await asyncio.wait({self._writer})

    def _add(self, frame: str) -> None:
        self._frames.append(frame)
        self._characters += len(frame)
        self._news.set()

    def _close(self) -> None:
        self._closed = True
        self._room.set()
        self._news.set()

    async def _write(self) -> None:
        try:
            while self._frames or not self._closed:
                if not self._frames:
                    self._news.clear()
                    await self._news.wait()
                    continue
                frame = self._frames.popleft()
                self._characters -= len(frame)
                self._room.set()
                self._blocked_since = self._loop.time()
                await self._send(frame)
                self._blocked_since = None
        except OSError:
            pass  # the client is gone; the server tells the consumer
        finally:
            self._close()
