"""What a token costs: the operator's price, the published one, or a guess that says so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.providers.contract import RouteConfig, Usage
from apps.providers.pricing import UNKNOWN, Price, dearest, price, published
from tests.providers.conftest import MakeUpstream, a_route

NOWHERE = RouteConfig("public", ())


@pytest.mark.parametrize("name", ["gpt-4o-mini", "openai/gpt-4o-mini"])
def test_a_published_price_is_found_by_name_and_by_maker_and_name(name: str) -> None:
    found = published(name)
    assert found.known
    assert (found.input_nusd, found.output_nusd) == (pytest.approx(150), pytest.approx(600))
    assert 0 < found.cached_nusd < found.input_nusd


def test_a_model_of_another_maker_has_its_own_price() -> None:
    assert published("anthropic/claude-3-5-haiku-latest").known


@pytest.mark.parametrize("name", ["no-such-model", "local", "/", "a/", "/b", "@cf/x", "x" * 128])
def test_an_unknown_model_costs_a_guess_that_says_so(name: str) -> None:
    assert published(name) == UNKNOWN
    assert UNKNOWN.cost(Usage(500, 500)) == 1_000_000  # 0.001 USD a thousand tokens
    assert not UNKNOWN.known


def test_the_operators_price_goes_before_the_published_one() -> None:
    route = RouteConfig("public", (), input_nusd=10, output_nusd=20)
    assert price(route, "gpt-4o-mini") == Price(10, 20, 10, known=True)


def test_a_price_of_nothing_is_a_price() -> None:
    route = RouteConfig("public", (), input_nusd=0, output_nusd=0)
    assert price(route, "gpt-4o") == Price(0, 0, 0, known=True)


def test_half_a_price_leaves_the_other_half_free() -> None:
    assert price(RouteConfig("public", (), input_nusd=10), "x") == Price(10, 0, 10, known=True)


def test_cached_tokens_have_their_own_price() -> None:
    assert Price(100, 1000, 10, known=True).cost(Usage(input_tokens=7, output_tokens=2, cached_tokens=5)) == 2250


def test_more_cached_tokens_than_tokens_are_not_a_refund() -> None:
    assert Price(100, 0, 10, known=True).cost(Usage(input_tokens=1, cached_tokens=5)) == 50


def test_what_is_reserved_is_the_dearest_upstreams_price(at: MakeUpstream) -> None:
    route = a_route(at("gpt-4o-mini"), at("gpt-4o"))
    assert dearest(route) == published("gpt-4o")
    assert dearest(NOWHERE) == UNKNOWN


@given(st.integers(0, 2**31), st.integers(0, 2**31), st.integers(0, 2**31))
def test_a_cost_is_a_whole_number_and_never_negative(inwards: int, outwards: int, cached: int) -> None:
    cost = published("gpt-4o-mini").cost(Usage(inwards, outwards, min(cached, inwards)))
    assert isinstance(cost, int)
    assert cost >= 0
