"""Another upstream takes over, and an upstream that keeps failing is left alone until a probe succeeds."""

import threading
from uuid import uuid4

import pytest

from tests.conftest import MakeRoute
from tests.journeys.conftest import Client, Rows
from tests.journeys.scripts import Hold
from tests.journeys.wire import assert_error, eventually, together
from tests.upstream import Upstream, hang, ok, raw, status, stream

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def names() -> list[str]:
    """Two upstream models that only this test knows."""
    return [f"{letter}-{uuid4().hex}" for letter in "ab"]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "script",
    [status(500), status(429), status(401), status(503, headers={"Retry-After": "60"}), raw(b"nonsense")],
    ids=["500", "429", "401", "503 for a minute", "nonsense"],
)
def test_the_second_upstream_answers_when_the_first_fails(
    script: object, streamed: bool, names: list[str], route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows
) -> None:
    first, second = names
    upstream.script(first, script)  # type: ignore[arg-type]
    model = route(upstreams=names)
    reply = client.chat(model, stream=streamed)
    assert reply.status == 200
    assert reply.seconds < 3  # the next upstream is tried without waiting
    assert reply.headers["redrive-upstream"].endswith(f"/{second}")
    assert reply.headers["redrive-attempts"] == "2"
    rows = ledger(model, 2)
    assert [(row.attempt, row.upstream_model, row.outcome) for row in rows] == [
        (1, first, "failed"),
        (2, second, "succeeded"),
    ]
    assert [row.cost_nusd > 0 for row in rows] == [False, True]


def test_a_refusal_of_the_request_is_not_taken_to_another_upstream(
    names: list[str], route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    upstream.script(names[0], status(422))
    assert_error(client.chat(route(upstreams=names)), 422, "model_error")
    assert upstream.requests(names[1]) == []


@pytest.mark.parametrize("streamed", [False, True])
def test_fallback_after_moves_on_from_a_slow_upstream_and_lets_go_of_it(
    streamed: bool, names: list[str], route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows
) -> None:
    gone = threading.Event()
    upstream.script(names[0], hang(gone=gone))
    upstream.script(names[1], ok("from the second"))
    model = route(upstreams=names, fallback_after=0.3)
    reply = client.chat(model, stream=streamed)
    assert reply.status == 200
    assert reply.seconds < 3 * 0.4
    assert reply.headers["redrive-upstream"].endswith(f"/{names[1]}")
    assert gone.wait(3)
    first, second = ledger(model, 2)
    assert (first.outcome, first.error_code, first.estimated) == ("failed", "timeout", True)
    assert second.outcome == "succeeded"


def test_refused_credentials_send_the_next_call_straight_to_the_other_upstream(
    names: list[str], route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    upstream.script(names[0], status(403))
    model = route(upstreams=names)
    assert client.chat(model).headers["redrive-attempts"] == "2"
    assert client.chat(model).headers["redrive-attempts"] == "1"
    assert len(upstream.requests(names[0])) == 1


def test_the_breaker_opens_after_three_failures_and_refuses_without_a_call(
    route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows
) -> None:
    model = route()
    upstream.script(model, status(500))
    assert_error(client.chat(model), 502, "model_error")
    reply = client.chat(model)
    assert_error(reply, 503, "service_unavailable")
    assert 1 <= int(reply.headers["retry-after"]) <= 30
    assert 0 < int(reply.headers["retry-after-ms"]) <= 30_000
    assert 0 < reply.error["details"]["retry_after"] <= 30
    assert_error(client.chat(model, stream=True), 503, "service_unavailable")
    assert len(upstream.requests(model)) == 3
    ledger(model, 3)


def test_refusals_of_the_request_do_not_open_the_breaker(route: MakeRoute, client: Client, upstream: Upstream) -> None:
    model = route(provider={"breaker_failures": 2})
    upstream.script(model, *[status(422)] * 4, ok())
    assert [client.chat(model).status for _ in range(5)] == [422] * 4 + [200]


def test_cut_streams_open_the_breaker(route: MakeRoute, client: Client, upstream: Upstream) -> None:
    model = route()
    upstream.script(model, stream("half", cut=True))
    for _ in range(3):
        assert client.chat(model, stream=True).status == 200
    assert_error(client.chat(model, stream=True), 503, "service_unavailable")


def test_an_open_breaker_sends_calls_to_the_other_upstream(
    names: list[str], route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    upstream.script(names[0], status(500))
    model = route(upstreams=names, provider={"breaker_failures": 1})
    assert client.chat(model).headers["redrive-attempts"] == "2"
    assert client.chat(model).headers["redrive-attempts"] == "1"
    assert len(upstream.requests(names[0])) == 1


def test_one_probe_closes_the_breaker_while_the_others_are_refused(
    route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    hold = Hold()
    model = route(provider={"breaker_failures": 1, "breaker_reset": 0.3})
    upstream.script(model, status(500), hold.reply(), ok())
    assert_error(client.chat(model), 502, "model_error")
    assert_error(client.chat(model), 503, "service_unavailable")
    threading.Event().wait(0.4)  # the breaker's own time: Redis' clock, which no test moves

    def one(index: int) -> int:
        answered = client.chat(model).status
        if answered != 200:
            refused.append(index)
        return answered

    refused: list[int] = []
    answers = together(5, one, meanwhile=lambda: hold.until(refused, 4, most=1))
    assert sorted(answers) == [200, 503, 503, 503, 503]
    assert len(upstream.requests(model)) == 2
    assert client.chat(model).status == 200


def test_a_probe_that_fails_keeps_the_breaker_open(route: MakeRoute, client: Client, upstream: Upstream) -> None:
    model = route(provider={"breaker_failures": 1, "breaker_reset": 0.3})
    upstream.script(model, status(500))
    assert client.chat(model).status == 502
    assert eventually(lambda: client.chat(model).status == 502, within=3, every=0.05)
    assert client.chat(model).status == 503
    upstream.script(model, ok())
    assert eventually(lambda: client.chat(model).status == 200, within=3, every=0.05)


def test_the_breaker_of_one_model_leaves_the_others_alone(route: MakeRoute, client: Client, upstream: Upstream) -> None:
    broken, fine = route(provider={"breaker_failures": 1}), route()
    upstream.script(broken, status(500))
    assert client.chat(broken).status == 502
    assert (client.chat(broken).status, client.chat(fine).status) == (503, 200)


def test_a_provider_serves_no_more_at_once_than_it_may(route: MakeRoute, client: Client, upstream: Upstream) -> None:
    hold = Hold()
    model = route(provider={"max_concurrency": 2})
    upstream.script(model, hold.reply())
    refused: list[int] = []

    def one(index: int) -> int:
        answered = client.chat(model).status
        if answered == 503:
            refused.append(index)
        return answered

    answers = together(5, one, meanwhile=lambda: hold.until(refused, 3, most=2))
    assert sorted(answers) == [200, 200, 503, 503, 503]
    assert len(upstream.requests(model)) == 2
