"""The operators' home: what it shows, to whom, at what cost, and without Redis."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

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
from apps.dead_letters.models import DeadLetter, FailureGroup
from apps.providers import breaker_board, circuit_breaker
from apps.providers.models import Upstream
from apps.tasks import queues
from apps.tasks.models import Task
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
        "No breaker is open: every provider is called.",
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


def test_the_home_tells_of_work_within_its_queries(admin_client: Client, make_key: MakeKey) -> None:
    key, _ = make_key()
    now = timezone.now() - timedelta(minutes=1)
    Task.objects.bulk_create(
        Task(project_id=key.project_id, kind="k", priority="low", queue="low", next_attempt_at=now) for _ in range(3)
    )
    group = FailureGroup.objects.create(fingerprint="f", kind="k", queue="low", code="c", message="m")
    DeadLetter.objects.create(
        task_id=uuid4(), cycle=1, group=group, project_id=key.project_id, kind="k", queue="low", code="c", attempts=1
    )
    queues.pause("high", reason="r")
    with CaptureQueriesContext(connection) as seen:
        html = html_of(admin_client)
    assert len(seen) <= 15
    strip = " ".join(html[html.index("rd-strip") : html.index("</section>")].split())
    for shown in ("<b>1</b> open dead letter", "3 due · 0 running · 0 retrying", "high (paused)", "has never run"):
        assert shown in strip
    assert reverse("admin:dead_letters_deadletter_changelist") + "?state__exact=open" in strip


def test_the_home_tells_of_work_only_to_whom_may_see_it(client: Client, django_user_model: Any) -> None:
    person = django_user_model.objects.create_user("person", is_staff=True)
    client.force_login(person)
    assert "rd-strip" not in html_of(client)
    person.user_permissions.add(Permission.objects.get(codename="view_queuestate"))
    html = html_of(client)
    assert "0 due" in html
    assert "open dead letter" not in html
    assert "worker" not in html
