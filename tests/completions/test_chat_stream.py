"""A streamed completion: booked however it ends, and never broken by what an upstream sends."""

import asyncio
import math
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from apps.completions import ledger
from apps.completions.chat import ChatStream
from apps.completions.spending import Spending
from apps.core.errors import RedriveError
from apps.providers.errors import StreamInterrupted
from tests.completions.conftest import an_attempt
from tests.upstream import chunk


class Opened:
    """Stands in for an open stream of an upstream: gives these, then the end, an error, or silence."""

    def __init__(self, *pieces: Any, then: Exception | None = None, hang: bool = False) -> None:
        self.attempt = an_attempt()
        self.closed = 0
        self.until = math.inf
        self._pieces, self._then, self._hang = pieces, then, hang

    async def chunks(self) -> AsyncGenerator[Any, None]:
        for piece in self._pieces:
            yield piece
        if self._hang:
            await asyncio.sleep(10)
        if self._then is not None:
            raise self._then

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture
def booked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is queued for the ledger."""
    kept: list[Any] = []
    monkeypatch.setattr(ledger, "batch", lambda: kept)
    return kept


def a_stream(opened: Opened, spending: Spending, *, wants_usage: bool = False) -> ChatStream:
    """A stream of the request."""
    source: Any = opened
    return ChatStream(source, spending, {"messages": []}, wants_usage=wants_usage)


async def read(stream: ChatStream) -> list[dict[str, Any]]:
    """All chunks."""
    found = []
    while (piece := await stream.next(2)) is not None:
        found.append(piece)
    return found


def last() -> dict[str, Any]:
    """The chunk in which an upstream tells its usage."""
    return {**chunk(None), "choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 3}}


async def test_every_chunk_has_the_same_head(booked: list[Any], spending: Spending) -> None:
    pieces = await read(a_stream(Opened(chunk("a"), chunk("b"), chunk(None, "stop"), last()), spending))
    assert len(pieces) == 3
    assert len({(piece["id"], piece["created"], piece["model"], piece["object"]) for piece in pieces}) == 1
    assert pieces[0]["model"] == "public"
    assert all("usage" not in piece for piece in pieces)


async def test_the_upstreams_usage_is_booked(booked: list[Any], spending: Spending) -> None:
    opened = Opened(chunk("a"), chunk(None, "stop"), last())
    await read(a_stream(opened, spending))
    (entry,) = booked
    assert (entry.input_tokens, entry.output_tokens, entry.estimated, entry.outcome) == (11, 3, False, "succeeded")
    assert opened.closed == 1


async def test_a_client_that_asks_gets_the_usage_last(booked: list[Any], spending: Spending) -> None:
    pieces = await read(a_stream(Opened(chunk("a"), chunk(None, "stop"), last()), spending, wants_usage=True))
    assert [piece["usage"] for piece in pieces[:-1]] == [None, None]
    assert pieces[-1]["choices"] == []
    assert pieces[-1]["usage"] == {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
    assert pieces[-1]["cost_usd"] == booked[0].cost_nusd / 1e9


async def test_without_usage_of_the_upstream_it_is_estimated(booked: list[Any], spending: Spending) -> None:
    await read(a_stream(Opened(chunk("x" * 40), chunk(None, "stop")), spending))
    assert (booked[0].input_tokens, booked[0].output_tokens, booked[0].estimated) == (7, 10, True)


async def test_a_cut_stream_is_booked_as_interrupted(booked: list[Any], spending: Spending) -> None:
    stream = a_stream(Opened(chunk("x" * 8), then=StreamInterrupted()), spending)
    assert await stream.next(2) is not None
    with pytest.raises(StreamInterrupted):
        await stream.next(2)
    assert (booked[0].outcome, booked[0].output_tokens, booked[0].estimated) == ("interrupted", 2, True)


async def test_a_client_that_leaves_is_billed_for_what_came(booked: list[Any], spending: Spending) -> None:
    opened = Opened(chunk("x" * 8), hang=True)
    stream = a_stream(opened, spending)
    await stream.next(2)
    await stream.close()
    assert (booked[0].outcome, booked[0].output_tokens) == ("cancelled", 2)
    assert opened.closed == 1


async def test_a_client_that_leaves_behind_a_full_buffer_is_billed_too(booked: list[Any], spending: Spending) -> None:
    opened = Opened(*[chunk("x" * 4)] * 500)
    stream = a_stream(opened, spending)
    await asyncio.sleep(0.05)
    await stream.close()
    assert booked[0].outcome == "cancelled"
    assert 0 < booked[0].output_tokens <= 110
    assert opened.closed == 1


ODD: list[dict[str, Any]] = [
    {"content": 5},
    {"content": ["x"]},
    {"content": {"a": 1}},
    {"tool_calls": 5},
    {"tool_calls": "x"},
    {"tool_calls": ["x"]},
    {"tool_calls": [None]},
    {"tool_calls": [{"function": "x"}]},
    {"tool_calls": [{"function": {"arguments": 5}}]},
    {"tool_calls": [{"function": {"arguments": ["x"]}}]},
    {"tool_calls": {"a": 1}},
    {"role": 5},
    {"refusal": 7},
]


@pytest.mark.parametrize("delta", ODD, ids=str)
async def test_an_odd_delta_passes_or_is_an_error_of_ours(
    booked: list[Any], spending: Spending, delta: dict[str, Any]
) -> None:
    odd = {**chunk(None), "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    try:
        await read(a_stream(Opened(odd, chunk("b"), chunk(None, "stop")), spending))
    except RedriveError:
        assert booked[0].outcome == "interrupted"
    assert len(booked) == 1


@pytest.mark.parametrize("usage", [None, 5, "x", [], {"prompt_tokens": -1}])
async def test_odd_usage_is_estimated(booked: list[Any], spending: Spending, usage: Any) -> None:
    await read(a_stream(Opened(chunk("abcd"), {**chunk(None, "stop"), "usage": usage}), spending))
    assert (booked[0].estimated, booked[0].outcome) == (True, "succeeded")
