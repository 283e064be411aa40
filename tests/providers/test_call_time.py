"""Deadlines, fallbacks, cancellation and the calls that a provider serves at once."""

import asyncio
import contextlib
import threading
import time
from typing import Any

import pytest
from aiohttp import web

from apps.core import errors, request_context
from apps.core.request_context import RequestContext
from apps.providers.contract import Attempt
from apps.providers.errors import UpstreamBroken, UpstreamTimeout
from apps.providers.upstream_choice import in_flight
from tests.providers.conftest import MakeUpstream, a_route
from tests.providers.test_call import a_call
from tests.redis_servers import redis_server
from tests.stores import PointRedisAt
from tests.upstream import Upstream, completion, hang, ok, status

pytestmark = pytest.mark.usefixtures("valkey")


def slow(seconds: float) -> Any:
    """An answer that begins after so many seconds."""

    async def reply(_: web.Request, __: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.json_response(completion("late"))

    return reply


def dripping(seconds: float) -> Any:
    """An answer that begins at once and takes so long to its end."""

    async def reply(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for _ in range(int(seconds / 0.1)):
            await response.write(b" ")
            await asyncio.sleep(0.1)
        await response.write(b"{}")
        return response

    return reply


async def test_a_slow_upstream_is_left_for_the_next_after_the_routes_time(upstream: Upstream, at: MakeUpstream) -> None:
    first, second = at(), at()
    gone = threading.Event()
    upstream.script(first.model, hang(gone=gone))
    began = time.monotonic()
    attempt, _ = await a_call(a_route(first, second, fallback_after=0.2), []).answer()
    assert time.monotonic() - began < 1.5
    assert attempt.number == 2
    assert await asyncio.to_thread(gone.wait, 2)


async def test_the_last_upstream_has_its_own_time_and_not_the_routes(upstream: Upstream, at: MakeUpstream) -> None:
    first, second = at(), at()
    upstream.script(first.model, hang())
    upstream.script(second.model, slow(0.5))
    attempt, _ = await a_call(a_route(first, second, fallback_after=0.2), []).answer()
    assert attempt.number == 2


async def test_a_call_ends_at_its_total_time_though_tries_are_left(upstream: Upstream, at: MakeUpstream) -> None:
    first, second = at(total_timeout=0.5), at(total_timeout=0.5)
    for one in (first, second):
        upstream.script(one.model, hang())
    began = time.monotonic()
    with pytest.raises(UpstreamTimeout):
        await a_call(a_route(first, second), []).answer()
    assert time.monotonic() - began < 1.5


async def test_an_answer_that_drips_ends_at_the_calls_total_time(upstream: Upstream, at: MakeUpstream) -> None:
    only = at(total_timeout=0.5)
    upstream.script(only.model, dripping(3))
    began = time.monotonic()
    with pytest.raises(UpstreamTimeout):
        await a_call(a_route(only), [], tries=1).answer()
    assert time.monotonic() - began < 1.5


async def test_a_cancelled_call_is_recorded_and_lets_go_of_the_upstream(upstream: Upstream, at: MakeUpstream) -> None:
    only = at()
    started, gone = threading.Event(), threading.Event()
    upstream.script(only.model, hang(started, gone))
    failed: list[Attempt] = []
    task = asyncio.ensure_future(a_call(a_route(only), failed).answer())
    assert await asyncio.to_thread(started.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(one.error_code, one.reached, one.latency > 0) for one in failed] == [("cancelled", True, True)]
    assert await asyncio.to_thread(gone.wait, 1)
    assert in_flight[only.provider.name] == 0


async def test_a_cancelled_call_does_not_speak_against_the_upstream(upstream: Upstream, at: MakeUpstream) -> None:
    only = at(breaker_failures=1)
    started = threading.Event()
    upstream.script(only.model, hang(started), ok())
    task = asyncio.ensure_future(a_call(a_route(only), []).answer())
    assert await asyncio.to_thread(started.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await a_call(a_route(only), []).answer()


async def test_an_answer_whose_client_leaves_while_redis_hangs_is_recorded_all_the_same(
    at: MakeUpstream, point_redis_at: PointRedisAt
) -> None:
    asked: list[bytes] = []

    async def freezing(command: list[bytes]) -> bytes | None:
        if command[0] == b"SELECT":
            return b"+OK\r\n"
        asked.append(command[0])
        return b"*3\r\n$6\r\nclosed\r\n:0\r\n:1\r\n" if len(asked) == 1 else None

    async with redis_server(freezing) as server:
        point_redis_at(server.url, redis_timeout=2.0)
        told: list[Attempt] = []
        task = asyncio.ensure_future(a_call(a_route(at()), told).answer())
        async with asyncio.timeout(5):
            while len(asked) < 2:
                await asyncio.sleep(0.01)
        task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
    # The provider has done its work: either the caller gets the answer to book, or the attempt is recorded.
    assert isinstance(outcome, tuple) or len(told) == 1


async def test_a_busy_provider_is_passed_over(upstream: Upstream, at: MakeUpstream) -> None:
    busy, free = at(max_concurrency=1), at()
    started = threading.Event()
    upstream.script(busy.model, hang(started))
    task = asyncio.ensure_future(a_call(a_route(busy), []).answer())
    assert await asyncio.to_thread(started.wait, 5)
    attempt, _ = await a_call(a_route(busy, free), []).answer()
    assert (attempt.number, attempt.upstream.model) == (1, free.model)
    with pytest.raises(errors.ServiceUnavailable) as raised:
        await a_call(a_route(busy), []).answer()
    assert raised.value.retry_after == 1
    task.cancel()
    await asyncio.wait({task})


async def test_calls_that_begin_at_once_stay_within_what_a_provider_serves(
    upstream: Upstream, at: MakeUpstream
) -> None:
    only = at(max_concurrency=2)
    upstream.script(only.model, slow(0.3))
    answers = await asyncio.gather(*(a_call(a_route(only), []).answer() for _ in range(8)), return_exceptions=True)
    assert sum(not isinstance(answer, BaseException) for answer in answers) == 2
    assert len(upstream.requests(only.model)) == 2


async def test_every_end_of_a_call_gives_its_place_back(upstream: Upstream, at: MakeUpstream) -> None:
    only = at(max_concurrency=1, breaker_failures=99)
    upstream.script(only.model, status(500), status(400), ok())
    for _ in range(3):
        with contextlib.suppress(errors.RedriveError):
            await a_call(a_route(only), [], tries=1).answer()
    assert in_flight[only.provider.name] == 0


async def test_an_open_breaker_answers_503_without_a_request(upstream: Upstream, at: MakeUpstream) -> None:
    only = at()
    upstream.script(only.model, status(500))
    for _ in range(3):
        with pytest.raises(UpstreamBroken):
            await a_call(a_route(only), [], tries=1).answer()
    with pytest.raises(errors.ServiceUnavailable) as raised:
        await a_call(a_route(only), []).answer()
    assert len(upstream.requests(only.model)) == 3
    assert raised.value.retry_after == pytest.approx(30, abs=2)
    assert raised.value.details == {"retry_after": raised.value.retry_after}


async def test_an_open_breaker_is_passed_over_for_the_next_upstream(upstream: Upstream, at: MakeUpstream) -> None:
    broken, whole = at(breaker_failures=1), at()
    upstream.script(broken.model, status(500))
    for _ in range(3):
        await a_call(a_route(broken, whole), []).answer()
    assert len(upstream.requests(broken.model)) == 1


@pytest.mark.parametrize("code", [400, 404, 422, 429])
async def test_an_upstream_that_refuses_is_not_broken(upstream: Upstream, at: MakeUpstream, code: int) -> None:
    only = at(breaker_failures=1)
    upstream.script(only.model, status(code, headers={"Retry-After": "60"}), ok())
    with pytest.raises(errors.RedriveError):
        await a_call(a_route(only), [], tries=1).answer()
    await a_call(a_route(only), []).answer()


async def test_the_reply_names_the_upstream_and_the_number_of_tries(upstream: Upstream, at: MakeUpstream) -> None:
    first, second = at(), at()
    upstream.script(first.model, status(500))
    context = RequestContext("req_1")
    request_context.enter(context)
    await a_call(a_route(first, second), []).answer()
    assert context.reply_headers == {"redrive-upstream": str(second), "redrive-attempts": "2"}
    assert context.log_fields["upstream"] == str(second)
    assert 0 < context.upstream_seconds < 5
