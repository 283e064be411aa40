"""A stream of an upstream after its first content: its chunks, how it ended, and letting go of it."""

import contextlib
import math
import time
from collections.abc import AsyncGenerator

from apps.core import errors
from apps.core.metrics import UPSTREAM_REQUESTS
from apps.providers import circuit_breaker
from apps.providers.bounded import PIECES
from apps.providers.contract import Attempt, Json, UpstreamStream
from apps.providers.upstream_choice import Lease, judge

MOST_HELD_BACK = 1024 * 1024  # characters


class OpenStream:
    """A stream that has begun. Iterate `chunks` once; `close` in any case."""

    def __init__(self, attempt: Attempt, source: UpstreamStream, began: float) -> None:
        self.attempt = attempt
        self.lease: Lease | None = None
        self.until = math.inf  # when the call's time is over, by the monotonic clock
        self.ended = False
        self._source = source
        self._chunks = source.chunks()
        self._began = began
        self._first: list[Json] = []

    async def read_to_first_content(self) -> None:
        """Hold back what comes before the first content, so that another upstream could still take over.

        After 100 pieces or 1 MiB without any the stream has begun all the same: memory is bounded.
        """
        size = 0
        async for chunk in self._chunks:
            self._first.append(chunk)
            size += len(str(chunk))
            if _has_content(chunk) or len(self._first) >= PIECES or size >= MOST_HELD_BACK:
                self.attempt.first_token = time.monotonic() - self._began
                return
        # An answer without any content is complete all the same.
        self.attempt.first_token = time.monotonic() - self._began

    async def chunks(self) -> AsyncGenerator[Json, None]:
        """All chunks from the first on. Raises UpstreamError; then what came before it is all there is."""
        try:
            for chunk in self._first:
                yield chunk
            async with contextlib.aclosing(self._chunks) as rest:
                async for chunk in rest:
                    yield chunk
        except errors.RedriveError as error:
            await self._lost(error)
            raise
        self.ended = True
        circuit_breaker.note_success(self.attempt.upstream)

    async def close(self) -> None:
        """Let go of the upstream: at once if the stream has not ended."""
        if self.lease is not None:
            self.lease.end()
        self.attempt.latency = time.monotonic() - self._began
        await self._source.close()

    async def _lost(self, error: errors.RedriveError) -> None:
        self.attempt.error_code = error.code
        UPSTREAM_REQUESTS.labels(self.attempt.upstream.provider.name, error.code).inc()
        await judge(self.attempt.upstream, error)


def _has_content(chunk: Json) -> bool:
    for choice in chunk.get("choices") or ():
        delta = choice.get("delta") or {}
        if choice.get("finish_reason") or any(delta.get(name) for name in delta if name != "role"):
            return True
    return False
