"""Streams: another upstream may take over before the first content, never after it."""

import asyncio
import json
import threading
import time
from typing import Any

import pytest

from apps.core.errors import RedriveError
from apps.providers import circuit_breaker
from apps.providers.bounded import Buffer
from apps.providers.contract import Attempt
from apps.providers.errors import StreamInterrupted, UpstreamBroken, UpstreamTimeout
from apps.providers.open_stream import OpenStream
from apps.providers.upstream_choice import in_flight
from tests.providers.conftest import MakeUpstream, a_route
from tests.providers.test_call import a_call
from tests.upstream import Upstream, chunk, raw, status, stream

pytestmark = pytest.mark.usefixtures("valkey")


def frame(value: object) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


ROLE = frame({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})


async def texts(opened: OpenStream) -> list[str]:
    """The pieces of text until the end."""
    found = []
    async for piece in opened.chunks():
        for choice in piece["choices"]:
            if choice["delta"].get("content"):
                found.append(choice["delta"]["content"])
    return found


async def rest(buffer: Buffer[Any]) -> None:
    """Read a buffer to its end."""
    while await buffer.next(2) is not None:
        pass


async def test_a_stream_gives_every_piece_and_ends(upstream: Upstream, at: MakeUpstream) -> None:
    only = at()
    upstream.script(only.model, stream("a", "b", "c"))
    opened = await a_call(a_route(only), []).stream()
    assert await texts(opened) == ["a", "b", "c"]
    assert opened.ended
    assert opened.attempt.first_token is not None
    await opened.close()
    assert in_flight[only.provider.name] == 0


async def test_a_stream_that_fails_before_its_first_content_goes_to_the_next_upstream(
    upstream: Upstream, at: MakeUpstream
) -> None:
    for reply in (
        status(500),
        stream(frames=(ROLE,), cut=True),
        stream(frames=(ROLE, frame({"error": {"message": "x"}})), finish=False),
        raw(b'{"error": {"message": "x"}}'),
        raw(b"nothing", "text/plain"),
        stream(frames=(ROLE, b"data: {broken\n\n"), finish=False),
    ):
        first, second = at(), at()
        upstream.script(first.model, reply)
        upstream.script(second.model, stream("fine"))
        failed: list[Attempt] = []
        opened = await a_call(a_route(first, second), failed).stream()
        assert await texts(opened) == ["fine"]
        assert opened.attempt.number == 2
        assert [one.error_code for one in failed] == ["model_error"]
        await opened.close()


async def test_a_stream_cut_after_its_first_content_stays_with_its_upstream(
    upstream: Upstream, at: MakeUpstream
) -> None:
    first, second = at(), at()
    upstream.script(first.model, stream("a", "b", cut=True))
    opened = await a_call(a_route(first, second), []).stream()
    pieces = []
    with pytest.raises(StreamInterrupted):
        async for piece in opened.chunks():
            pieces.append(piece["choices"][0]["delta"]["content"])
    assert pieces == ["a", "b"]
    assert not opened.ended
    assert opened.attempt.error_code == "model_error"
    assert upstream.requests(second.model) == []
    await opened.close()


async def test_a_stream_without_its_terminal_event_is_not_whole(upstream: Upstream, at: MakeUpstream) -> None:
    only = at()
    upstream.script(only.model, stream("a", finish=False))
    opened = await a_call(a_route(only), []).stream()
    with pytest.raises(StreamInterrupted):
        await texts(opened)
    await opened.close()


async def test_a_finish_reason_in_every_choice_ends_a_stream_without_done(upstream: Upstream, at: MakeUpstream) -> None:
    only = at()
    upstream.script(only.model, stream("a", finish=False, frames=(frame(chunk(None, "stop")),)))
    opened = await a_call(a_route(only), []).stream()
    assert await texts(opened) == ["a"]
    assert opened.ended
    await opened.close()


async def test_an_error_inside_a_running_stream_is_raised(upstream: Upstream, at: MakeUpstream) -> None:
    only = at(breaker_failures=1)
    upstream.script(only.model, stream("a", frames=(frame({"error": {"message": "overloaded"}}),), finish=False))
    opened = await a_call(a_route(only), []).stream()
    with pytest.raises(UpstreamBroken):
        await texts(opened)
    await opened.close()
    assert (await circuit_breaker.ask(only)).name == "open"


async def test_a_silent_stream_ends_after_the_idle_time(upstream: Upstream, at: MakeUpstream) -> None:
    only = at(idle_timeout=0.2)
    gone = threading.Event()
    upstream.script(only.model, stream("a", then_hang=True, gone=gone))
    opened = await a_call(a_route(only), []).stream()
    with pytest.raises(UpstreamTimeout):
        await texts(opened)
    await opened.close()
    assert await asyncio.to_thread(gone.wait, 1)


async def test_a_stream_whose_first_token_is_late_is_a_504(upstream: Upstream, at: MakeUpstream) -> None:
    only = at(first_token_timeout=0.2)
    upstream.script(only.model, stream(frames=(ROLE,), then_hang=True))
    failed: list[Attempt] = []
    with pytest.raises(UpstreamTimeout):
        await a_call(a_route(only), failed, tries=1).stream()
    assert failed[0].reached
    assert in_flight[only.provider.name] == 0


async def test_silence_before_the_first_content_goes_to_the_next_upstream(upstream: Upstream, at: MakeUpstream) -> None:
    first, second = at(), at()
    gone = threading.Event()
    upstream.script(first.model, stream(frames=(ROLE,), then_hang=True, gone=gone))
    upstream.script(second.model, stream("fine"))
    opened = await a_call(a_route(first, second, fallback_after=0.3), []).stream()
    assert await texts(opened) == ["fine"]
    assert await asyncio.to_thread(gone.wait, 1)
    await opened.close()


async def test_a_stream_ends_at_the_calls_total_time(upstream: Upstream, at: MakeUpstream) -> None:
    only = at(total_timeout=0.5)
    upstream.script(only.model, stream(*["a"] * 60, every=0.05))
    opened = await a_call(a_route(only), []).stream()
    began = time.monotonic()
    with pytest.raises(UpstreamTimeout):
        await texts(opened)
    assert time.monotonic() - began < 1.5
    await opened.close()


async def test_a_stream_out_of_time_behind_a_slow_reader_does_not_look_finished(
    upstream: Upstream, at: MakeUpstream
) -> None:
    only = at(total_timeout=0.4)
    upstream.script(only.model, stream(*["a"] * 20, then_hang=True))
    opened = await a_call(a_route(only), []).stream()
    buffer = Buffer(opened.chunks(), size=3)
    await asyncio.sleep(0.8)
    held = [await buffer.next(2) for _ in range(3)]
    assert None not in held
    with pytest.raises(UpstreamTimeout):
        await rest(buffer)
    await buffer.close()
    await opened.close()


async def test_closing_a_running_stream_aborts_the_upstream(upstream: Upstream, at: MakeUpstream) -> None:
    only = at()
    gone = threading.Event()
    upstream.script(only.model, stream("a", then_hang=True, gone=gone))
    opened = await a_call(a_route(only), []).stream()
    await opened.close()
    assert await asyncio.to_thread(gone.wait, 1)
    assert in_flight[only.provider.name] == 0


async def test_a_stream_counts_as_one_call_of_its_provider_until_it_is_closed(
    upstream: Upstream, at: MakeUpstream
) -> None:
    only = at(max_concurrency=5)
    upstream.script(only.model, stream("a"))
    opened = await a_call(a_route(only), []).stream()
    assert in_flight[only.provider.name] == 1
    await texts(opened)
    await opened.close()
    await opened.close()
    assert in_flight[only.provider.name] == 0


@pytest.mark.parametrize("index", [{"a": 1}, [1], "0", 1.5])
async def test_a_piece_whose_index_is_no_number_counts_as_the_first_choice(
    upstream: Upstream, at: MakeUpstream, index: object
) -> None:
    only = at()
    piece = {"choices": [{"index": index, "delta": {"content": "b"}, "finish_reason": "stop"}]}
    upstream.script(only.model, stream(frames=(frame(piece),)))
    opened = await a_call(a_route(only), []).stream()
    assert await texts(opened) == ["b"]
    await opened.close()


async def test_a_stream_that_never_comes_to_its_content_holds_back_100_pieces_at_most(
    upstream: Upstream, at: MakeUpstream
) -> None:
    only = at()
    upstream.script(only.model, stream(frames=(ROLE,) * 500))
    opened = await a_call(a_route(only), []).stream()
    assert len(opened._first) == 100
    assert len([piece async for piece in opened.chunks()]) >= 500
    await opened.close()


async def test_what_is_held_back_of_a_stream_is_bounded_in_size(upstream: Upstream, at: MakeUpstream) -> None:
    only = at()
    big = frame({"choices": [{"index": 0, "delta": {"role": "x" * 600_000}}]})
    upstream.script(only.model, stream(frames=(big,) * 5))
    opened = await a_call(a_route(only), []).stream()
    assert len(opened._first) == 2
    await opened.close()


async def test_the_authorization_sent_to_an_upstream_does_not_come_back_in_its_refusal(
    upstream: Upstream, at: MakeUpstream
) -> None:
    headers = {"Authorization": "Bearer hunter2", "X-Tenant": "s3cret"}
    for reply in (
        status(400, {"error": {"message": "no hunter2", "param": "hunter2 s3cret", "code": "s3cret"}}),
        raw(b'{"error": {"message": "no hunter2 s3cret", "code": "content_filter"}}'),
    ):
        only = at(headers=headers)
        upstream.script(only.model, reply)
        with pytest.raises(RedriveError) as raised:
            await a_call(a_route(only), []).answer()
        shown = f"{raised.value.message} {raised.value.param} {raised.value.details}"
        assert "hunter2" not in shown
        assert "s3cret" not in shown
