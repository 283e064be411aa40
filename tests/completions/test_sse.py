"""A stream as server-sent events."""

import asyncio
import json
from typing import Any

import pytest

from apps.completions import sse
from apps.core import errors, request_context
from apps.core.request_context import RequestContext


class Stream:
    """Gives these one after another: a chunk, an error to raise, or seconds of silence."""

    def __init__(self, *items: Any) -> None:
        self.items = list(items)
        self.closed = 0
        self.waits: list[float | None] = []

    async def next(self, wait: float | None = None) -> Any:
        self.waits.append(wait)
        if not self.items:
            return None
        item = self.items.pop(0)
        if isinstance(item, Exception):
            raise item
        return item

    async def close(self) -> None:
        self.closed += 1


async def render(*items: Any) -> tuple[list[bytes], Stream]:
    """The frames of a stream."""
    request_context.enter(RequestContext("req_test"))
    stream = Stream(*items)
    return [frame async for frame in sse.events(stream)], stream


async def test_chunks_are_frames_and_done_is_the_last() -> None:
    frames, stream = await render({"a": 1}, {"b": "日本\n"})
    assert frames == [b'data: {"a":1}\n\n', 'data: {"b":"日本\\n"}\n\n'.encode(), b"data: [DONE]\n\n"]
    assert stream.closed == 1


async def test_a_long_silence_is_a_comment() -> None:
    frames, stream = await render({"a": 1}, TimeoutError(), TimeoutError(), {"b": 2})
    assert frames[1:3] == [b": ping\n\n"] * 2
    assert frames[-1] == b"data: [DONE]\n\n"
    assert set(stream.waits) == {15.0}


@pytest.mark.parametrize(
    ("raised", "status_type", "code"),
    [
        (errors.UpstreamError(), "server_error", "model_error"),
        (errors.ServiceUnavailable(), "server_error", "service_unavailable"),
        (KeyError("secret"), "server_error", "internal_error"),
    ],
)
async def test_an_error_is_a_frame_and_the_end_without_done(raised: Exception, status_type: str, code: str) -> None:
    frames, stream = await render({"a": 1}, raised)
    inner = json.loads(frames[-1].removeprefix(b"data: "))["error"]
    assert (inner["type"], inner["code"], inner["request_id"]) == (status_type, code, "req_test")
    assert b"secret" not in frames[-1]
    assert not any(b"[DONE]" in frame for frame in frames)
    assert stream.closed == 1


async def test_a_lone_surrogate_is_an_escape() -> None:
    frames, _ = await render({"a": "\ud83d"})
    assert frames[0] == b'data: {"a":"\\ud83d"}\n\n'


async def test_a_reader_that_leaves_closes_the_stream() -> None:
    stream = Stream({"a": 1}, {"b": 2})
    frames = sse.events(stream)
    await anext(frames)
    await frames.aclose()
    assert stream.closed == 1


async def test_a_cancelled_reader_closes_the_stream() -> None:
    class Silent(Stream):
        async def next(self, wait: float | None = None) -> Any:
            await asyncio.sleep(10)

    stream = Silent()
    task = asyncio.ensure_future(anext(sse.events(stream)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stream.closed == 1
