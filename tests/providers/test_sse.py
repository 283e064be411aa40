"""Reading an upstream's server-sent events, whatever the pieces in which they arrive."""

import asyncio
import itertools
import json
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.core.errors import ContextLengthExceeded, RedriveError
from apps.providers.adapters.event_stream import MAX_EVENT, EventParser
from apps.providers.adapters.openai_http import SSEStream
from apps.providers.errors import StreamInterrupted, UpstreamBroken, UpstreamTimeout
from tests.upstream import chunk


class Response:
    """What SSEStream reads: the bytes as they arrive, then the end, an error or silence."""

    def __init__(self, blocks: list[bytes], then: Exception | None = None, hang: bool = False) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.content = self
        self._blocks, self._then, self._hang = list(blocks), then, hang
        self._closed = asyncio.Event()

    async def readany(self) -> bytes:
        if self._blocks:
            return self._blocks.pop(0)
        if self._then is not None:
            raise self._then
        if self._hang:
            await self._closed.wait()
            raise aiohttp.ClientConnectionError("Connection closed")
        return b""

    def at_eof(self) -> bool:
        return not self._blocks and not self._hang

    def close(self) -> None:
        self._closed.set()

    release = close


async def read(*blocks: bytes, choices: int = 1, **response: Any) -> list[dict[str, Any]]:
    """The chunks of a stream that arrives in these blocks."""
    found: Any = Response([block for block in blocks if block], **response)
    stream = SSEStream(found, idle=0.1, within=60, choices=choices)
    try:
        return [piece async for piece in stream.chunks()]
    finally:
        await stream.close()


def data(value: Any, end: bytes = b"\n") -> bytes:
    """One event."""
    return b"data: " + json.dumps(value).encode() + end + end


A, B, STOP = chunk("a"), chunk("b\r\n日本"), chunk(None, "stop")
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
async def test_events_end_with_either_kind_of_line(end: bytes) -> None:
    assert await read(data(A, end) + data(B, end) + b"data: [DONE]" + end + end) == [A, B]


@pytest.mark.parametrize(
    "noise",
    [b": ping\n\n", b":\n\n", b"event: message\nid: 7\nretry: 10\n", b"\n\n\n", b"event: x\n\n", b"unknown: x\n"],
)
async def test_what_is_no_data_is_passed_over(noise: bytes) -> None:
    assert await read(noise + data(A) + noise + data(B) + DONE) == [A, B]


async def test_an_event_of_several_lines_is_one_value() -> None:
    lines = json.dumps(A, indent=1).splitlines()
    event = "".join(f"data: {line}\n" for line in lines).encode() + b"\n"
    assert await read(event + DONE) == [A]


async def test_the_space_after_the_colon_may_be_missing() -> None:
    assert await read(b"data:" + json.dumps(A).encode() + b"\n\ndata:[DONE]\n\n") == [A]


async def test_what_comes_after_done_is_not_read() -> None:
    assert await read(data(A) + DONE + b"data: {broken\n\n") == [A]


@pytest.mark.parametrize("last", [b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE]\r\n"])
async def test_the_last_blank_line_may_be_missing(last: bytes) -> None:
    assert await read(data(A) + last) == [A]


async def test_a_finish_reason_may_stand_in_for_done() -> None:
    assert await read(data(A) + data(STOP)) == [A, STOP]


async def test_every_choice_needs_its_finish_reason() -> None:
    with pytest.raises(StreamInterrupted):
        await read(data(A) + data(STOP), choices=2)
    second = json.loads(json.dumps(STOP))
    second["choices"][0]["index"] = 1
    assert len(await read(data(STOP) + data(second), choices=2)) == 2


@pytest.mark.parametrize("blocks", [[], [data(A)], [data(A), b": ping\n\n"], [b"\n"]])
async def test_an_end_without_a_terminal_event_is_a_cut(blocks: list[bytes]) -> None:
    with pytest.raises(StreamInterrupted):
        await read(*blocks)


async def test_a_broken_connection_is_a_cut() -> None:
    with pytest.raises(StreamInterrupted):
        await read(data(A), then=ConnectionResetError())


async def test_silence_is_a_timeout() -> None:
    with pytest.raises(UpstreamTimeout):
        await read(data(A), hang=True)


@pytest.mark.parametrize(
    "event",
    [
        b"data: {broken\n\n",
        b"data: 5\n\n",
        b"data: []\n\n",
        b'data: {"choices": 5}\n\n',
        b'data: {"choices": ["x"]}\n\n',
    ],
)
async def test_a_piece_that_is_no_chunk_is_a_broken_upstream(event: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        await read(event)


@pytest.mark.parametrize("field", ["index", "finish_reason", "delta"])
@pytest.mark.parametrize("value", [None, [], {}, "x", -1, 1e30, True])
async def test_odd_values_in_a_choice_never_raise_anything_but_our_errors(field: str, value: Any) -> None:
    odd = json.loads(json.dumps(A))
    odd["choices"][0] |= {"finish_reason": "stop", field: value}
    try:
        pieces = await read(data(odd) + DONE)
    except RedriveError:
        return
    assert isinstance(pieces[0]["choices"][0]["delta"], dict)


async def test_an_error_inside_the_stream_is_ours() -> None:
    with pytest.raises(UpstreamBroken):
        await read(data(A) + data({"error": {"message": "overloaded"}}))
    with pytest.raises(ContextLengthExceeded):
        await read(data({"error": {"code": "context_length_exceeded", "message": "too long"}}))


async def test_an_endless_line_is_a_broken_upstream() -> None:
    with pytest.raises(UpstreamBroken):
        await read(*[b"x" * 2**20] * (MAX_EVENT // 2**20 + 2))


async def test_an_endless_event_is_a_broken_upstream() -> None:
    line = b"data: " + b"x" * 2**20 + b"\n"
    with pytest.raises(UpstreamBroken):
        await read(*[line] * (MAX_EVENT // 2**20 + 2), hang=True)


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)


@settings(max_examples=150)
@given(
    texts=st.lists(TEXTS, max_size=6),
    end=st.sampled_from([b"\n", b"\r\n"]),
    comments=st.booleans(),
    done=st.booleans(),
    cuts=st.lists(st.integers(0, 2000), max_size=12),
)
def test_a_stream_reads_the_same_wherever_its_bytes_are_split(
    texts: list[str], end: bytes, comments: bool, done: bool, cuts: list[int]
) -> None:
    chunks = [chunk(text) for text in texts] + [STOP]
    raw = b"".join((b": ping" + end + end if comments else b"") + data(value, end) for value in chunks)
    raw += b"data: [DONE]" + end + end if done else b""
    places = sorted({min(cut, len(raw)) for cut in cuts} | {0, len(raw)})
    blocks = [raw[start:stop] for start, stop in itertools.pairwise(places)]
    assert asyncio.run(read(*blocks)) == chunks


@settings(max_examples=150)
@given(raw=st.binary(max_size=200) | st.text('data:{}[]\n\r"0 DONE', max_size=80).map(str.encode))
def test_any_bytes_give_chunks_or_an_error_of_ours(raw: bytes) -> None:
    try:
        pieces = asyncio.run(read(raw))
    except RedriveError:
        return
    assert all(isinstance(piece, dict) for piece in pieces)


def test_data_lines_without_an_end_of_their_event_are_bounded() -> None:
    parser = EventParser()
    with pytest.raises(UpstreamBroken):
        for _ in range(MAX_EVENT):
            parser.feed(b"data:\n" * 100_000)
    assert len(parser._data) <= MAX_EVENT
