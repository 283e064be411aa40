"""A month's budget as a caller meets it: never overspent, and never forgotten by a store that forgets."""

from collections.abc import Callable
from decimal import Decimal

import pytest
from django.db.models import Sum
from redis import Redis

from apps.completions.models import LedgerEntry
from tests.conftest import MakeRoute
from tests.journeys.conftest import Client, Rows
from tests.journeys.scripts import used
from tests.journeys.wire import Reply, assert_error, together
from tests.upstream import Upstream, status, stream

pytestmark = pytest.mark.django_db(transaction=True)
Caller = Callable[..., Client]

A_CENT_A_TOKEN = {"input_usd_per_million": 0, "output_usd_per_million": 10_000}


def budget(usd: str) -> dict[str, Decimal]:
    return {"monthly_budget_usd": Decimal(usd)}


def assert_used_up(reply: Reply) -> None:
    assert_error(reply, 402, "budget_exceeded")
    assert reply.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("of", ["limits", "project_limits"])
def test_a_budget_that_is_used_up_is_402_without_a_call(
    of: str, route: MakeRoute, caller: Caller, upstream: Upstream, ledger: Rows
) -> None:
    model, client = route(**A_CENT_A_TOKEN), caller(**{of: budget("0.10")})
    replies = [client.chat(model, max_tokens=5) for _ in range(3)]  # five cents each
    assert [reply.status for reply in replies] == [200, 200, 402]
    assert_used_up(replies[-1])
    assert len(upstream.requests(model)) == 2
    assert [row.cost_nusd for row in ledger(model, 2)] == [50_000_000] * 2


def test_what_may_cost_more_than_is_left_is_refused(route: MakeRoute, caller: Caller, upstream: Upstream) -> None:
    model, client = route(**A_CENT_A_TOKEN), caller(limits=budget("0.10"))
    assert_used_up(client.chat(model, max_tokens=11))
    assert client.chat(model, max_tokens=10).status == 200


def test_money_that_was_reserved_but_not_spent_comes_back(route: MakeRoute, caller: Caller, upstream: Upstream) -> None:
    model, client = route(**A_CENT_A_TOKEN), caller(limits=budget("0.10"))
    upstream.script(model, status(422), used(1, 1))
    assert client.chat(model, max_tokens=10).status == 422
    assert [client.chat(model, max_tokens=8).status for _ in range(3)] == [200, 200, 200]  # 8 reserved, 1 spent
    assert_used_up(client.chat(model, max_tokens=8))


def test_fifty_at_once_never_spend_more_than_the_budget(
    route: MakeRoute, caller: Caller, upstream: Upstream, ledger: Rows
) -> None:
    model, client = route(**A_CENT_A_TOKEN), caller(limits=budget("0.37"))
    answers = together(50, lambda _: client.chat(model, max_tokens=5).status)
    assert sorted(answers) == [200] * 7 + [402] * 43
    assert len(upstream.requests(model)) == 7
    ledger(model, 7)
    assert LedgerEntry.objects.filter(model=model).aggregate(Sum("cost_nusd"))["cost_nusd__sum"] <= 370_000_000


def test_a_budget_is_rebuilt_from_the_ledger_when_the_store_forgets_everything(
    route: MakeRoute, caller: Caller, upstream: Upstream, ledger: Rows, store: Redis
) -> None:
    model, client = route(**A_CENT_A_TOKEN), caller(limits=budget("0.20"))
    assert [client.chat(model, max_tokens=5).status for _ in range(3)] == [200] * 3
    ledger(model, 3)
    store.flushdb()
    assert client.chat(model, max_tokens=5).status == 200
    assert_used_up(client.chat(model, max_tokens=5))
    store.flushdb()
    assert_used_up(client.chat(model, max_tokens=5))
    assert len(upstream.requests(model)) == 4


def test_a_crowd_that_finds_the_store_empty_spends_only_what_is_left(
    route: MakeRoute, caller: Caller, upstream: Upstream, ledger: Rows, store: Redis
) -> None:
    model, client = route(**A_CENT_A_TOKEN), caller(limits=budget("0.25"))
    assert [client.chat(model, max_tokens=5).status for _ in range(2)] == [200] * 2
    ledger(model, 2)
    store.flushdb()
    answers = together(20, lambda _: client.chat(model, max_tokens=5).status)
    assert sorted(answers) == [200] * 3 + [402] * 17
    assert len(upstream.requests(model)) == 5


def test_a_cut_stream_spends_what_came(route: MakeRoute, caller: Caller, upstream: Upstream) -> None:
    model, client = route(**A_CENT_A_TOKEN), caller(limits=budget("0.10"))
    upstream.script(model, stream("x" * 36, cut=True))  # nine tokens
    assert client.chat(model, max_tokens=10, stream=True).status == 200
    assert_used_up(client.chat(model, max_tokens=2))
