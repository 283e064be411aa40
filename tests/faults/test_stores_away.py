"""Postgres or Redis stopped or frozen under a running gateway: what goes on, what is refused, and how it comes back."""

import pytest

from tests.faults.conftest import Serve
from tests.faults.stores import Set, Stores
from tests.gateway import Gateway
from tests.journeys.conftest import HELLO, Client
from tests.journeys.scripts import Hold
from tests.journeys.wire import Reply, assert_error, call, eventually, send
from tests.upstream import Upstream, status

HOWS = pytest.mark.parametrize("how", ["stopped", "frozen"])
A_SECOND_MORE = 3.0  # seconds: the promise is one, with room


def unavailable(reply: Reply) -> None:
    assert_error(reply, 503, "service_unavailable")
    assert int(reply.headers["retry-after"]) >= 1


def readiness(gateway: Gateway) -> tuple[int, dict[str, bool]]:
    reply = call(gateway.url, "GET", "/readyz")
    return reply.status, {name: check["ok"] for name, check in reply.json()["checks"].items()}


@HOWS
def test_known_keys_are_served_without_postgres_and_the_ledger_catches_up(
    how: str, stores: Stores, gateway: Gateway, plain: Client, mine: Set, upstream: Upstream
) -> None:
    with stores.postgres.away(how):
        replies = [plain.chat(mine.model) for _ in range(3)] + [plain.chat(mine.model, stream=True)]
        assert [reply.status for reply in replies] == [200] * 4
        assert max(reply.seconds for reply in replies) < A_SECOND_MORE
        assert plain.call("GET", "/v1/models").status == 200
        # Longer than one look for changed configuration takes to fail, and far from the ten minutes that are promised.
        assert not eventually(lambda: plain.chat(mine.model).status != 200, within=3, every=0.2)
    served = len(upstream.requests(mine.model))
    assert eventually(lambda: len(stores.rows(mine.model)) == served, within=9, every=0.1)
    assert stores.rows(mine.model) == ["succeeded"] * served
    assert eventually(lambda: readiness(gateway)[0] == 200, within=9, every=0.1)


@HOWS
def test_an_unknown_key_is_503_and_never_401_without_postgres(
    how: str, stores: Stores, gateway: Gateway, plain: Client, mine: Set
) -> None:
    stranger = Client(gateway.url, mine.strict)  # good, but not known to this process yet
    with stores.postgres.away(how):
        for _ in range(2):
            payload = {"model": mine.model, "messages": HELLO}
            unavailable(stranger.call("POST", "/v1/chat/completions", payload=payload, timeout=10))
        assert plain.chat(mine.model).status == 200
    assert eventually(lambda: stranger.chat(mine.model).status == 200, within=9, every=0.1)


@HOWS
def test_readiness_names_postgres_while_the_process_lives(
    how: str, stores: Stores, gateway: Gateway, plain: Client
) -> None:
    vital = {"postgres": True, "redis": True, "migrations": True, "encryption": True}
    answered, checks = readiness(gateway)
    background = {name: checks.pop(name) for name in ("clock", "workers")}  # other tests may run them beside
    assert (answered, checks, len(background)) == (200, vital, 2)
    with stores.postgres.away(how):
        answered, checks = readiness(gateway)
        assert (answered, checks["postgres"], checks["redis"]) == (503, False, True)
        assert call(gateway.url, "GET", "/livez").status == 200
    assert eventually(lambda: readiness(gateway)[0] == 200, within=9, every=0.1)


def test_a_ledger_that_is_full_refuses_what_would_spend(
    stores: Stores, serve: Serve, mine: Set, upstream: Upstream
) -> None:
    client = Client(serve(REDRIVE_LEDGER_BACKLOG="3").url, mine.plain)
    assert client.chat(mine.model).status == 200
    assert eventually(lambda: stores.rows(mine.model), within=3)
    with stores.postgres.stopped():
        replies = [client.chat(mine.model) for _ in range(6)]
        assert [reply.status for reply in replies] == [200] * 3 + [503] * 3
        unavailable(replies[-1])
        unavailable(client.chat(mine.model, stream=True))
        assert len(upstream.requests(mine.model)) == 4
        assert client.call("GET", "/v1/models").status == 200
    assert eventually(lambda: len(stores.rows(mine.model)) == 4, within=9, every=0.1)
    assert client.chat(mine.model).status == 200


@HOWS
def test_limits_fail_open_without_redis_and_hold_again_afterwards(
    how: str, stores: Stores, gateway: Gateway, mine: Set, plain: Client
) -> None:
    strict = Client(gateway.url, mine.strict)
    assert strict.chat(mine.model).headers["x-ratelimit-limit-requests"] == "10"
    with stores.redis.away(how):
        replies = [strict.chat(mine.model) for _ in range(15)] + [strict.chat(mine.model, stream=True)]
        assert [reply.status for reply in replies] == [200] * 16
        assert max(reply.seconds for reply in replies) < A_SECOND_MORE
        assert strict.call("GET", "/v1/models").status == 200
        assert readiness(gateway)[1]["redis"] is False
        assert call(gateway.url, "GET", "/livez").status == 200
    assert eventually(lambda: readiness(gateway)[0] == 200, within=6, every=0.1)
    assert eventually(lambda: strict.chat(mine.model).status == 429, within=6, every=0.02)


@HOWS
def test_limits_fail_closed_without_redis_where_the_setting_says_so(
    how: str, stores: Stores, serve: Serve, mine: Set, upstream: Upstream
) -> None:
    client = Client(serve(REDRIVE_LIMITS_FAIL_OPEN="false").url, mine.plain)
    assert client.chat(mine.model).status == 200
    with stores.redis.away(how):
        for streamed in (False, True):
            reply = client.chat(mine.model, stream=streamed)
            unavailable(reply)
            assert reply.seconds < A_SECOND_MORE
    assert len(upstream.requests(mine.model)) == 1
    assert eventually(lambda: client.chat(mine.model).status == 200, within=6, every=0.1)


@HOWS
def test_a_budget_fails_closed_without_redis_and_forgets_nothing(
    how: str, stores: Stores, gateway: Gateway, mine: Set, upstream: Upstream
) -> None:
    poor = Client(gateway.url, mine.poor)
    assert poor.chat(mine.model, max_tokens=5).status == 200  # five of ten cents
    assert eventually(lambda: stores.rows(mine.model), within=3)
    with stores.redis.away(how):
        reply = poor.chat(mine.model, max_tokens=5)
        unavailable(reply)
        assert reply.seconds < A_SECOND_MORE
    assert eventually(lambda: poor.chat(mine.model, max_tokens=5).status == 200, within=6, every=0.1)
    assert_error(poor.chat(mine.model, max_tokens=5), 402, "budget_exceeded")
    assert len(upstream.requests(mine.model)) == 2


def test_money_that_was_spent_while_redis_went_away_is_counted_afterwards(
    stores: Stores, gateway: Gateway, mine: Set, upstream: Upstream
) -> None:
    hold, poor = Hold(), Client(gateway.url, mine.poor)
    upstream.script(mine.model, hold.reply())
    connection = poor.begin_chat(mine.model, max_tokens=5)
    assert eventually(lambda: hold.waiting, within=5)
    with stores.redis.frozen():
        hold.release.set()
        response = connection.getresponse()
        assert response.status == 200
        response.read()
    connection.close()
    assert eventually(lambda: stores.rows(mine.model), within=3)
    assert eventually(lambda: poor.chat(mine.model, max_tokens=5).status == 200, within=6, every=0.1)
    assert_error(poor.chat(mine.model, max_tokens=5), 402, "budget_exceeded")


def test_a_slot_that_redis_took_while_frozen_is_free_again(stores: Stores, gateway: Gateway, mine: Set) -> None:
    single = Client(gateway.url, mine.single)
    assert "x-ratelimit-limit-requests" in single.chat(mine.model).headers  # Redis was asked
    with stores.redis.frozen():
        assert single.chat(mine.model).status == 200
    assert eventually(lambda: readiness(gateway)[0] == 200, within=6, every=0.1)
    assert eventually(lambda: single.chat(mine.model).status == 200, within=3, every=0.1)


def test_the_breaker_works_in_the_process_without_redis(
    stores: Stores, plain: Client, mine: Set, upstream: Upstream
) -> None:
    upstream.script(mine.model, status(500))
    with stores.redis.stopped():
        assert_error(plain.chat(mine.model), 502, "model_error")
        unavailable(plain.chat(mine.model))
    assert len(upstream.requests(mine.model)) == 1 + 3


@HOWS
def test_an_idempotency_key_fails_closed_without_postgres(
    how: str, stores: Stores, plain: Client, mine: Set, upstream: Upstream
) -> None:
    keyed = {"Idempotency-Key": "order-1"}
    with stores.postgres.away(how):
        reply = plain.chat(mine.model, headers=keyed)
        unavailable(reply)
        assert reply.seconds < 2 * 2.0 + A_SECOND_MORE  # what Postgres is given to answer
        assert plain.chat(mine.model).status == 200
    assert len(upstream.requests(mine.model)) == 2  # the fixture's, and the one without a key
    assert eventually(lambda: plain.chat(mine.model, headers=keyed).status == 200, within=9, every=0.2)


def test_a_reply_whose_key_cannot_be_written_reaches_its_client_and_is_kept_afterwards(
    stores: Stores, plain: Client, mine: Set, upstream: Upstream
) -> None:
    hold = Hold()
    upstream.script(mine.model, hold.reply("once"), status(500))
    payload = {"model": mine.model, "messages": HELLO}
    headers = {"Idempotency-Key": "order-1"}
    connection = send(plain.url, "POST", "/v1/chat/completions", key=plain.secret, payload=payload, headers=headers)
    assert eventually(lambda: hold.waiting, within=5)
    with stores.postgres.stopped():
        hold.release.set()
        response = connection.getresponse()
        assert response.status == 200
        body = response.read()
    connection.close()
    kept = eventually(lambda: (found := plain.chat(mine.model, headers=headers)).status == 200 and found, within=9)
    assert kept
    assert (kept.body, kept.headers["idempotent-replayed"]) == (body, "true")
