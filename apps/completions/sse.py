"""Renders a stream as server-sent events: chunks, a comment in long silence, an error frame, `[DONE]`."""

from collections.abc import AsyncGenerator
from typing import Protocol

import structlog

from apps.core import error_payload, errors, json_codec, request_context
from apps.providers.contract import Json

log = structlog.get_logger(__name__)

HEARTBEAT = 15.0  # seconds of silence
PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"


class Stream(Protocol):
    """What `events` renders; see completions/chat.py."""

    async def next(self, wait: float | None = None) -> Json | None: ...

    async def close(self) -> None: ...


async def events(stream: Stream, *, heartbeat: float = HEARTBEAT) -> AsyncGenerator[bytes, None]:
    """The bytes of the response. A failure after the first piece is a frame `data: {"error": ...}` and the end,
    without `[DONE]`: a cut answer must never look finished."""
    try:
        while True:
            try:
                chunk = await stream.next(heartbeat)
            except TimeoutError:
                yield PING
                continue
            if chunk is None:
                break
            yield b"data: " + json_codec.dumps(chunk) + b"\n\n"
        yield DONE
    except Exception as error:
        yield failure(error)
    finally:
        await stream.close()


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
