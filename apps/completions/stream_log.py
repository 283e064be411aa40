"""Keeps what a running answer produces in a Redis stream, so that others read along and resume at any piece.

It is a copy for readers: losing it, or Redis, loses no work and fails nobody. Entries are JSON objects numbered from
1 without gaps. A log is kept for an hour after its last entry; after 4 MiB its last one says `truncated`.
"""

import asyncio
import contextlib
from pathlib import Path

from apps.core import json_codec, redis
from apps.providers.contract import Json

KEPT = 3600  # seconds after the last entry
GATHER = 0.05  # seconds between two appends: pieces that come faster share one
MAX_BYTES = 4 * 1024 * 1024
PAGE = 500  # entries of one read
_APPEND = redis.Script((Path(__file__).parent / "lua" / "append.lua").read_text())


def key(owner: str, attempt: int) -> str:
    """The log of one attempt of a task or a completion."""
    return f"rd:log:{{{owner}}}:{attempt}"


class Writer:
    """Appends to one log from one loop; nobody ever waits for Redis but `close`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._fresh: list[Json] = []
        self._numbered: dict[int, bytes] = {}  # on their way
        self._number = 0
        self._bytes = 0
        self._flushing: asyncio.Task[None] | None = None

    def text(self, text: str, choice: int = 0) -> None:
        """Queue a piece of an answer; pieces that wait together become one entry."""
        last = self._fresh[-1] if self._fresh else None
        if last is not None and last["type"] == "text" and last["choice"] == choice:
            last["text"] += text
        else:
            self.append({"type": "text", "choice": choice, "text": text})

    def append(self, entry: Json) -> None:
        """Queue an entry, an object with a `type`."""
        self._fresh.append(entry)
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())

    async def close(self) -> None:
        """Append what waits; what Redis does not take now is given up."""
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.wait([self._flushing])
        with contextlib.suppress(redis.RedisAway):
            await self._write()

    async def _flush(self) -> None:
        while self._fresh or self._numbered:
            await asyncio.sleep(GATHER)
            with contextlib.suppress(redis.RedisAway):  # kept, and tried again
                await self._write()

    async def _write(self) -> None:
        self._give_numbers()
        if not self._numbered:
            return
        taken = dict(self._numbered)
        args: list[str | int | bytes] = [KEPT]
        for number, text in taken.items():
            args += (number, text)
        await redis.pipe().run(_APPEND, [self._name], args)
        for number in taken:
            del self._numbered[number]

    def _give_numbers(self) -> None:
        # A number once given stays: an append whose answer was lost is repeated as it was.
        fresh, self._fresh = self._fresh, []
        for entry in fresh:
            if self._bytes > MAX_BYTES:
                return
            text = json_codec.dumps(entry)
            self._bytes += len(text)
            self._number += 1
            self._numbered[self._number] = text if self._bytes <= MAX_BYTES else b'{"type":"truncated"}'


async def read(name: str, after: int = 0) -> list[tuple[int, Json]]:
    """At most PAGE entries after a number, in order; none where there is no log, or no Redis."""
    try:
        found = await redis.pipe().command("XRANGE", name, f"({after}-0" if after else "-", "+", "COUNT", PAGE)
    except redis.RedisAway:
        return []
    return [(int(entry_id.partition(b"-")[0]), json_codec.loads(fields[1])) for entry_id, fields in found]
