"""Renders a stream as server-sent events: chunks, a comment in long silence, an error frame, `[DONE]`."""

from collections.abc import AsyncGenerator, Callable
from typing import Protocol, TypeVar

import structlog

from apps.core import error_payload, errors, json_codec, request_context
from apps.providers.contract import Json

log = structlog.get_logger(__name__)

HEARTBEAT = 15.0  # seconds of silence
PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"


P_co = TypeVar("P_co", covariant=True)


class Source(Protocol[P_co]):
    """What is rendered piece by piece; see completions/chat.py and providers/bounded.py."""

    async def next(self, wait: float | None = None) -> P_co | None: ...

    async def close(self) -> None: ...


async def frames(
    source: Source[P_co], render: Callable[[P_co], bytes], *, end: bytes = b"", heartbeat: float = HEARTBEAT
) -> AsyncGenerator[bytes, None]:
    """The bytes of a response: its pieces rendered, a comment in long silence, then `end`.

    A failure after the first piece is a frame `data: {"error": ...}` and the end, without `end`: a cut answer must
    never look finished.
    """
    try:
        while True:
            try:
                piece = await source.next(heartbeat)
            except TimeoutError:
                yield PING
                continue
            if piece is None:
                break
            yield render(piece)
        if end:
            yield end
    except Exception as error:
        yield failure(error)
    finally:
        await source.close()


def events(stream: Source[Json], *, heartbeat: float = HEARTBEAT) -> AsyncGenerator[bytes, None]:
    """The bytes of a completion's response."""
    return frames(stream, _data, end=DONE, heartbeat=heartbeat)


def _data(chunk: Json) -> bytes:
    return b"data: " + json_codec.dumps(chunk) + b"\n\n"


def failure(error: Exception) -> bytes:
    """The frame that ends a stream with an error."""
    known = error_payload.translate(error)
    if known is None:
        log.error("stream_failed", exc_info=error)
        known = errors.InternalError()
    return _frame(known)


def stopping() -> bytes:
    """The frame that ends a stream when the gateway stops before it."""
    return _frame(errors.ServiceUnavailable("The gateway stops. Send the request again."))


def _frame(error: errors.RedriveError) -> bytes:
    payload = error_payload.payload(error, request_context.current().request_id)
    return b"data: " + json_codec.dumps(payload) + b"\n\n"
