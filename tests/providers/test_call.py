"""The policy of one call: which upstream, how often, and what ends it."""

import time
from typing import Any

import pytest

from apps.core import errors
from apps.providers import call as policy
from apps.providers.call import Call
from apps.providers.contract import Attempt, RouteConfig
from apps.providers.errors import (
    UpstreamBroken,
    UpstreamCredentials,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from tests.providers.conftest import MakeUpstream, a_route
from tests.upstream import Upstream, hang, ok, raw, status

pytestmark = pytest.mark.usefixtures("valkey")


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "BACKOFF_BASE", 0.01)


def a_call(route: RouteConfig, failed: list[Attempt], **fields: Any) -> Call:
    """A chat call whose failed attempts end in the list."""
    return Call(route, "chat/completions", lambda one: {"model": one.model, "messages": []}, failed.append, **fields)


async def test_the_first_upstream_that_answers_ends_the_call(upstream: Upstream, at: MakeUpstream) -> None:
    first, second = at(), at()
    failed: list[Attempt] = []
    attempt, answer = await a_call(a_route(first, second), failed).answer()
    assert answer.body["choices"][0]["message"]["content"] == "hello"
    assert (attempt.number, attempt.upstream.model, attempt.status) == (1, first.model, 200)
    assert attempt.upstream_request_id == "up-1"
    assert failed == []
    assert upstream.requests(second.model) == []


async def test_a_failing_upstream_hands_over_to_the_next_without_waiting(upstream: Upstream, at: MakeUpstream) -> None:
    first, second = at(), at()
    upstream.script(first.model, status(503, headers={"Retry-After": "9"}))
    failed: list[Attempt] = []
    began = time.monotonic()
    attempt, _ = await a_call(a_route(first, second), failed).answer()
    assert time.monotonic() - began < 1
    assert attempt.number == 2
    assert [(one.number, one.upstream.model, one.error_code) for one in failed] == [(1, first.model, "model_error")]


@pytest.mark.parametrize("code", [500, 503, 401])
async def test_a_failed_attempt_keeps_the_upstreams_own_status(upstream: Upstream, at: MakeUpstream, code: int) -> None:
    first, second = at(), at()
    upstream.script(first.model, status(code))
    failed: list[Attempt] = []
    await a_call(a_route(first, second), failed).answer()
    assert failed[0].status == code


async def test_the_last_upstream_is_tried_again_three_tries_in_all(upstream: Upstream, at: MakeUpstream) -> None:
    only = at(breaker_failures=9)
    upstream.script(only.model, status(500))
    failed: list[Attempt] = []
    with pytest.raises(UpstreamBroken) as raised:
        await a_call(a_route(only), failed).answer()
    assert len(upstream.requests(only.model)) == 3
    assert [one.number for one in failed] == [1, 2, 3]
    assert raised.value.should_retry is False


async def test_two_upstreams_share_the_three_tries(upstream: Upstream, at: MakeUpstream) -> None:
    first, second = at(), at()
    for one in (first, second):
        upstream.script(one.model, status(500))
    with pytest.raises(UpstreamBroken):
        await a_call(a_route(first, second), []).answer()
    assert (len(upstream.requests(first.model)), len(upstream.requests(second.model))) == (1, 2)


async def test_four_upstreams_are_not_four_tries(upstream: Upstream, at: MakeUpstream) -> None:
    upstreams = [at() for _ in range(4)]
    for one in upstreams:
        upstream.script(one.model, status(500))
    with pytest.raises(UpstreamBroken):
        await a_call(a_route(*upstreams), []).answer()
    assert [len(upstream.requests(one.model)) for one in upstreams] == [1, 1, 1, 0]


@pytest.mark.parametrize("code", [400, 404, 409, 413, 422])
async def test_a_refused_request_is_raised_at_once(upstream: Upstream, at: MakeUpstream, code: int) -> None:
    first, second = at(), at()
    upstream.script(first.model, status(code, {"error": {"message": "no", "param": "tools"}}))
    failed: list[Attempt] = []
    with pytest.raises(UpstreamRefused) as raised:
        await a_call(a_route(first, second), failed).answer()
    assert (raised.value.status, raised.value.param) == (code, "tools")
    assert upstream.requests(second.model) == []
    assert len(failed) == 1


@pytest.mark.parametrize("code", [401, 402, 403])
async def test_refused_credentials_lead_to_the_next_upstream(upstream: Upstream, at: MakeUpstream, code: int) -> None:
    first, second = at(), at()
    upstream.script(first.model, status(code))
    for _ in range(2):
        await a_call(a_route(first, second), []).answer()
    assert len(upstream.requests(first.model)) == 1
    assert len(upstream.requests(second.model)) == 2


async def test_credentials_refused_everywhere_are_said_so_and_not_tried_again(
    upstream: Upstream, at: MakeUpstream
) -> None:
    only = at()
    upstream.script(only.model, status(401))
    for _ in range(2):
        with pytest.raises(UpstreamCredentials) as raised:
            await a_call(a_route(only), []).answer()
        assert raised.value.should_retry is False
    assert len(upstream.requests(only.model)) == 1


async def test_retry_after_is_waited_for(upstream: Upstream, at: MakeUpstream) -> None:
    only = at()
    upstream.script(only.model, status(429, headers={"retry-after-ms": "400"}), ok())
    began = time.monotonic()
    attempt, _ = await a_call(a_route(only), []).answer()
    assert attempt.number == 2
    assert time.monotonic() - began >= 0.4


async def test_a_long_retry_after_is_passed_on_instead_of_waited_for(upstream: Upstream, at: MakeUpstream) -> None:
    only = at()
    upstream.script(only.model, status(429, headers={"Retry-After": "30"}))
    began = time.monotonic()
    with pytest.raises(UpstreamRateLimited) as raised:
        await a_call(a_route(only), []).answer()
    assert time.monotonic() - began < 5
    assert raised.value.retry_after == 30
    assert raised.value.should_retry is None
    assert len(upstream.requests(only.model)) == 1


async def test_a_retry_that_would_outlive_the_deadline_is_not_begun(upstream: Upstream, at: MakeUpstream) -> None:
    only = at(total_timeout=1)
    upstream.script(only.model, status(429, headers={"Retry-After": "2"}))
    with pytest.raises(UpstreamRateLimited):
        await a_call(a_route(only), []).answer()
    assert len(upstream.requests(only.model)) == 1


async def test_no_connection_leads_to_the_next_upstream(at: MakeUpstream) -> None:
    failed: list[Attempt] = []
    attempt, _ = await a_call(a_route(at(base_url="http://127.0.0.1:1/v1"), at()), failed).answer()
    assert attempt.number == 2
    assert (failed[0].status, failed[0].reached) == (None, False)


async def test_nobody_reachable_is_a_502(at: MakeUpstream) -> None:
    with pytest.raises(UpstreamUnreachable) as raised:
        await a_call(a_route(at(base_url="http://127.0.0.1:1/v1")), []).answer()
    assert (raised.value.status, raised.value.code) == (502, "model_error")


@pytest.mark.parametrize(
    "reply",
    [
        raw(b"{broken"),
        raw(b"[1, 2]"),
        raw(b""),
        raw(b'"text"'),
        raw(b'{"error": {"message": "inside"}}'),
        raw(b'{"error": "inside"}'),
        raw(b"<html>", "text/html"),
    ],
)
async def test_an_answer_that_is_none_counts_against_the_upstream(
    upstream: Upstream, at: MakeUpstream, reply: Any
) -> None:
    first, second = at(), at()
    upstream.script(first.model, reply)
    failed: list[Attempt] = []
    attempt, _ = await a_call(a_route(first, second), failed).answer()
    assert attempt.number == 2
    assert failed[0].error_code == "model_error"


async def test_a_route_without_an_enabled_upstream_is_unavailable() -> None:
    with pytest.raises(errors.ServiceUnavailable):
        await a_call(RouteConfig("public", ()), []).answer()


async def test_an_upstream_that_never_answers_is_a_504(upstream: Upstream, at: MakeUpstream) -> None:
    only = at(total_timeout=0.2)
    upstream.script(only.model, hang())
    failed: list[Attempt] = []
    with pytest.raises(UpstreamTimeout) as raised:
        await a_call(a_route(only), failed, tries=1).answer()
    assert (raised.value.status, raised.value.code) == (504, "timeout")
    assert failed[0].reached
    assert failed[0].latency >= 0.1


async def test_the_secret_of_the_provider_and_the_model_name_there_are_what_arrives(
    upstream: Upstream, at: MakeUpstream
) -> None:
    only = at()
    await a_call(a_route(only), []).answer()
    (arrived,) = upstream.requests(only.model)
    assert arrived.headers["Authorization"] == "Bearer sk-upstream"
    assert arrived.path == "/v1/chat/completions"
