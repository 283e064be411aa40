"""Limits as a caller meets them: requests, tokens, slots, end users; refused calls never reach a provider."""

import threading
from collections.abc import Callable

import pytest

from apps.access.models import Limit
from tests.conftest import MakeKey, MakeRoute
from tests.journeys.conftest import HELLO, Client
from tests.journeys.scripts import Hold, used
from tests.journeys.wire import Reply, assert_error, eventually, leave, together
from tests.upstream import Upstream, ok, status, stream, vectors

pytestmark = pytest.mark.django_db(transaction=True)
Caller = Callable[..., Client]


def assert_limited(reply: Reply, *, within: float = 60) -> None:
    assert_error(reply, 429, "rate_limit_exceeded")
    assert 1 <= int(reply.headers["retry-after"]) <= within
    assert 1 <= int(reply.headers["retry-after-ms"]) <= within * 1000


def test_the_eleventh_of_eleven_quick_calls_of_a_10_a_minute_key_is_429(
    route: MakeRoute, caller: Caller, upstream: Upstream
) -> None:
    model, client = route(), caller(rpm=10)
    replies = [client.chat(model) for _ in range(11)]
    assert [reply.status for reply in replies] == [200] * 10 + [429]
    assert_limited(replies[-1], within=6)
    assert [int(reply.headers["x-ratelimit-remaining-requests"]) for reply in replies[:10]] == list(range(9, -1, -1))
    assert {reply.headers["x-ratelimit-limit-requests"] for reply in replies} == {"10"}
    assert len(upstream.requests(model)) == 10


def test_a_crowd_at_one_moment_gets_no_more_than_the_limit(
    route: MakeRoute, caller: Caller, upstream: Upstream
) -> None:
    model, client = route(), caller(rpm=10)
    answers = together(30, lambda _: client.chat(model).status)
    assert sorted(answers) == [200] * 10 + [429] * 20
    assert len(upstream.requests(model)) == 10


def test_two_keys_of_a_project_share_its_limit(
    route: MakeRoute, caller: Caller, make_key: MakeKey, upstream: Upstream
) -> None:
    model = route()
    row, secret = make_key(project_limits={"requests_per_minute": 3})
    first = caller()
    first.secret = secret
    second = caller(project=row.project)
    answers = [client.chat(model) for client in (first, second, first, second)]
    assert [reply.status for reply in answers] == [200, 200, 200, 429]
    assert_limited(answers[-1], within=20)
    assert answers[0].headers["x-ratelimit-limit-requests"] == "3"


def test_tokens_that_were_used_count_against_the_minute(route: MakeRoute, caller: Caller, upstream: Upstream) -> None:
    model, client = route(), caller(limits={"tokens_per_minute": 6000})
    upstream.script(model, used(5000, 900))
    first, second = client.chat(model), client.chat(model)
    assert first.status == 200
    assert first.headers["x-ratelimit-limit-tokens"] == "6000"
    assert_limited(second)
    assert int(second.headers["x-ratelimit-remaining-tokens"]) < 300
    assert len(upstream.requests(model)) == 1


def test_tokens_that_were_reserved_but_not_used_come_back(route: MakeRoute, caller: Caller, upstream: Upstream) -> None:
    model, client = route(), caller(limits={"tokens_per_minute": 1100})
    assert [client.chat(model).status for _ in range(4)] == [200] * 4  # 1024 reserved, 15 used each time


def test_a_request_greater_than_the_whole_minute_is_refused_for_good(
    route: MakeRoute, caller: Caller, upstream: Upstream
) -> None:
    model, client = route(), caller(limits={"tokens_per_minute": 1000})
    reply = client.chat(model, max_tokens=5000)
    assert_error(reply, 429, "rate_limit_exceeded")
    assert reply.headers["x-should-retry"] == "false"
    assert upstream.requests(model) == []
    assert client.chat(model, max_tokens=10).status == 200


def test_slots_bound_what_runs_at_once_and_are_free_again_at_the_end(
    route: MakeRoute, caller: Caller, upstream: Upstream
) -> None:
    model, client, hold = route(), caller(limits={"concurrency": 3}), Hold()
    upstream.script(model, hold.reply())
    refused: list[Reply] = []

    def one(_: int) -> int:
        reply = client.chat(model)
        if reply.status != 200:
            refused.append(reply)
        return reply.status

    answers = together(8, one, meanwhile=lambda: hold.until(refused, 5, most=3))
    assert sorted(answers) == [200] * 3 + [429] * 5
    assert_limited(refused[0])
    assert len(upstream.requests(model)) == 3
    assert [client.chat(model).status for _ in range(3)] == [200] * 3


@pytest.mark.parametrize("streamed", [True, False])
def test_a_slot_is_free_again_when_its_client_is_gone(
    streamed: bool, route: MakeRoute, caller: Caller, upstream: Upstream
) -> None:
    model, client, hold = route(), caller(limits={"concurrency": 1}), Hold()
    upstream.script(model, stream("one ", then_hang=True) if streamed else hold.reply(), ok())
    if streamed:
        connection, response = client.open_chat(model)
    else:
        connection, response = client.begin_chat(model), None
        assert eventually(lambda: hold.waiting, 5)
    assert_limited(client.chat(model))
    leave(connection, response)
    assert eventually(lambda: client.chat(model).status == 200, within=3, every=0.05)
    hold.release.set()


def test_a_slot_is_free_again_after_a_failure(route: MakeRoute, caller: Caller, upstream: Upstream) -> None:
    model, client = route(), caller(limits={"concurrency": 1})
    upstream.script(model, status(422), stream("x", cut=True), ok())
    assert client.chat(model).status == 422
    assert client.chat(model, stream=True).status == 200
    assert client.chat(model).status == 200


def test_an_end_user_has_a_limit_of_their_own(route: MakeRoute, caller: Caller, upstream: Upstream) -> None:
    model, client = route(), caller(limits={"end_user_requests_per_minute": 2})
    ada = [client.chat(model, headers={"X-User-ID": "ada"}).status, client.chat(model, user="ada").status]
    assert ada == [200, 200]
    refused = client.chat(model, user="ada")
    assert_limited(refused, within=30)
    assert client.chat(model, user="bob").status == 200
    assert client.chat(model).status == 200
    assert len(upstream.requests(model)) == 4


def test_an_end_users_limit_does_not_replace_the_keys(route: MakeRoute, caller: Caller, upstream: Upstream) -> None:
    model, client = route(), caller(rpm=3, limits={"end_user_requests_per_minute": 2})
    assert [client.chat(model, user=f"u{index}").status for index in range(4)] == [200, 200, 200, 429]


REPLIES: dict[str, tuple[int, Callable[[Client, str], Reply]]] = {
    "chat": (200, lambda client, model: client.chat(model)),
    "stream": (200, lambda client, model: client.chat(model, stream=True)),
    "models": (200, lambda client, model: client.call("GET", "/v1/models")),
    "model": (200, lambda client, model: client.call("GET", f"/v1/models/{model}")),
    "bad field": (400, lambda client, model: client.chat(model, temperature=9)),
    "bad JSON": (400, lambda client, model: client.call("POST", "/v1/chat/completions", body=b"{")),
    "unknown model": (404, lambda client, model: client.chat("no-such-model")),
}


@pytest.mark.parametrize(("expected", "ask"), REPLIES.values(), ids=REPLIES)
def test_replies_to_a_known_key_show_its_limits(
    expected: int, ask: Callable[[Client, str], Reply], route: MakeRoute, caller: Caller
) -> None:
    model, client = route(), caller(rpm=60, limits={"tokens_per_minute": 120_000})
    reply = ask(client, model)
    assert reply.status == expected
    names = {name: value for name, value in reply.headers.items() if name.startswith("x-ratelimit")}
    kinds = {
        f"x-ratelimit-{what}-{unit}" for what in ("limit", "remaining", "reset") for unit in ("requests", "tokens")
    }
    assert set(names) == kinds
    assert (names["x-ratelimit-limit-requests"], names["x-ratelimit-limit-tokens"]) == ("60", "120000")
    assert 0 <= int(names["x-ratelimit-remaining-requests"]) <= 60
    assert names["x-ratelimit-reset-requests"].endswith("s")


def test_embeddings_and_failures_of_a_provider_show_the_limits_too(
    route: MakeRoute, caller: Caller, upstream: Upstream
) -> None:
    model, client = route(), caller(rpm=60)
    upstream.script(model, vectors(), status(422))
    replies = [client.call("POST", "/v1/embeddings", payload={"model": model, "input": "x"}), client.chat(model)]
    assert [reply.status for reply in replies] == [200, 422]
    assert all(reply.headers["x-ratelimit-limit-requests"] == "60" for reply in replies)
    assert not any("x-ratelimit-limit-tokens" in reply.headers for reply in replies)


def test_a_changed_limit_is_in_force_within_a_second(route: MakeRoute, caller: Caller) -> None:
    model, client = route(), caller(rpm=1000)
    assert client.chat(model).headers["x-ratelimit-limit-requests"] == "1000"
    Limit.objects.filter(requests_per_minute=1000).update(requests_per_minute=777)

    def shown() -> bool:
        return client.chat(model).headers["x-ratelimit-limit-requests"] == "777"

    assert eventually(shown, within=3, every=0.1)


def test_the_bucket_fills_again(route: MakeRoute, caller: Caller) -> None:
    model, client = route(), caller(rpm=120)
    replies: list[Reply] = together(125, lambda _: client.chat(model))
    refused = [reply for reply in replies if reply.status == 429]
    assert refused
    wait = max(int(reply.headers["retry-after-ms"]) for reply in refused) / 1000
    assert wait <= 0.5 * len(refused)  # one every half second
    threading.Event().wait(wait)
    assert client.chat(model, messages=HELLO).status == 200
