"""The operators' home: what it shows, to whom, at what cost, and without Redis."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from apps.access.models import ApiKey
from apps.completions import statistics
from apps.completions.models import LedgerEntry
from apps.providers import breaker_board, circuit_breaker
from apps.providers.models import Upstream
from config import charts
from tests.conftest import MakeKey, MakeRoute
from tests.stores import NOBODY_LISTENS, PointRedisAt, point_redis_at

__all__ = ["point_redis_at"]
pytestmark = pytest.mark.django_db
HOME, PART = "/admin/", "/admin/operations/"


@pytest.fixture(autouse=True)
def _fresh_numbers() -> Iterator[None]:
    statistics.forget()
    yield
    statistics.forget()


@pytest.fixture
def upstream_row(make_route: MakeRoute) -> Upstream:
    return Upstream.objects.select_related("provider").get(route__public_name=make_route())


def spend(key: ApiKey, provider: str = "p", model: str = "u", **fields: Any) -> None:
    values: dict[str, Any] = {
        "created_at": timezone.now(), "request_id": "r", "project_id": key.project_id, "api_key_id": key.pk,
        "operation": "chat/completions", "model": "m", "provider": provider, "upstream_model": model, "attempt": 1,
        "stream": False, "outcome": "succeeded", "input_tokens": 10, "cached_tokens": 0, "output_tokens": 5,
        "cost_nusd": 1_500_000_000, "estimated": False, "latency_ms": 432, "elapsed_ms": 1,
    }  # fmt: skip
    LedgerEntry.objects.create(**{**values, **fields})


def html_of(client: Client, url: str = HOME) -> str:
    response = client.get(url)
    assert response.status_code == 200
    return response.content.decode()


def test_a_new_installation_is_told_the_next_step(
    admin_client: Client, upstream_row: Upstream, make_key: MakeKey
) -> None:
    make_key()
    html = html_of(admin_client)
    assert "Everything is ready" in html
    assert "curl http://testserver/v1/chat/completions" in html
    assert upstream_row.route.public_name in html
    assert reverse("admin:access_apikey_add") in html


def test_without_a_route_the_home_does_not_say_that_all_is_ready(admin_client: Client) -> None:
    assert "Nearly ready" in html_of(admin_client)


@pytest.mark.parametrize("url", [HOME, PART])
def test_the_home_shows_numbers_charts_and_breakers(
    admin_client: Client, make_key: MakeKey, upstream_row: Upstream, url: str
) -> None:
    key, _ = make_key()
    spend(key, upstream_row.provider.name, upstream_row.model)
    spend(key, outcome="failed", cost_nusd=0)
    html = html_of(admin_client, url)
    for shown in (
        "$1.50",
        "50 %",
        "432 ms",
        upstream_row.provider.name,
        upstream_row.model,
        "All providers are in use",
    ):
        assert shown in html
    assert html.count('<svg class="rd-chart"') == 4
    assert "<script>" not in html


def test_the_home_costs_at_most_15_queries_and_one_look_at_the_ledger(
    admin_client: Client, make_key: MakeKey, make_route: MakeRoute
) -> None:
    spend(make_key()[0])
    make_route(upstreams=[f"u{number}" for number in range(20)])
    with CaptureQueriesContext(connection) as queries:
        html_of(admin_client)
    assert len(queries) <= 15
    assert sum("completions_ledgerentry" in query["sql"] for query in queries) == 1


def test_the_numbers_are_shared_by_pages_that_refresh_themselves(admin_client: Client, make_key: MakeKey) -> None:
    spend(make_key()[0])
    html_of(admin_client)
    with CaptureQueriesContext(connection) as queries:
        html_of(admin_client, PART)
    assert not any("completions_ledgerentry" in query["sql"] for query in queries)


def test_an_open_breaker_is_shown_with_its_reset(
    admin_client: Client, make_key: MakeKey, upstream_row: Upstream
) -> None:
    spend(make_key()[0])
    for _ in range(3):
        circuit_breaker._by_client(breaker_board._upstream(upstream_row.provider, upstream_row.model), "fail")
    html = html_of(admin_client)
    assert "1 breaker keeps, calls away" not in html
    assert "1 breaker keeps calls away" in html
    assert reverse("admin:providers_provider_reset_breaker", args=[upstream_row.provider_id]) in html


def test_the_home_says_that_redis_is_away(
    admin_client: Client, make_key: MakeKey, upstream_row: Upstream, point_redis_at: PointRedisAt
) -> None:
    spend(make_key()[0])
    point_redis_at(NOBODY_LISTENS)
    html = html_of(admin_client)
    assert "Redis does not answer" in html
    assert "$1.50" in html


def test_people_see_only_what_they_may(
    client: Client, django_user_model: Any, make_key: MakeKey, upstream_row: Upstream
) -> None:
    spend(make_key()[0])
    person = django_user_model.objects.create_user("person", is_staff=True)
    client.force_login(person)
    html = html_of(client)
    assert "may not see numbers" in html
    assert "$1.50" not in html
    person.user_permissions.add(Permission.objects.get(codename="view_provider"))
    html = html_of(client)
    assert upstream_row.provider.name in html
    assert "$1.50" not in html


def test_a_refresh_after_the_session_ended_leads_to_the_login(client: Client) -> None:
    response = client.get(PART)
    assert response.status_code == 403
    assert response["HX-Redirect"].startswith("/admin/login/")


def test_names_cannot_put_markup_into_a_chart() -> None:
    axis = charts.Axis(timezone.now(), statistics.BUCKET)
    series = [charts.Series("<b>", '"><script>', [1.0, None, 3.0])]
    for drawn in (charts.bars("<i>", axis, series), charts.lines("<i>", axis, series)):
        assert "<script>" not in drawn.svg
        assert "<i>" not in drawn.svg
        assert "<b>" not in drawn.svg
