"""The admin in a real browser: no console error, no foreign request, and it works without JavaScript."""

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from apps.completions.models import LedgerEntry
from apps.providers import breaker_board, circuit_breaker
from apps.providers.models import Upstream as UpstreamRow
from tests.conftest import MakeKey, MakeRoute
from tests.journeys.browser import InBrowser, Open

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def broken(make_key: MakeKey, make_route: MakeRoute) -> UpstreamRow:
    """An upstream with some traffic and an open breaker."""
    key, _ = make_key()
    row = UpstreamRow.objects.select_related("provider").get(route__public_name=make_route())
    LedgerEntry.objects.create(
        created_at=timezone.now(), request_id="r", project_id=key.project_id, api_key=key,
        operation="chat/completions", model="m", provider=row.provider.name, upstream_model=row.model, attempt=1,
        stream=False, outcome="succeeded", input_tokens=10, cached_tokens=0, output_tokens=5, cost_nusd=1_230_000_000,
        estimated=False, latency_ms=321, elapsed_ms=321,
    )  # fmt: skip
    for _ in range(3):
        circuit_breaker._by_client(breaker_board._upstream(row.provider, row.model), "fail")
    return row


def state(row: UpstreamRow) -> str:
    return breaker_board.load(provider=row.provider)[0].state


def test_the_home_refreshes_itself_and_resets_a_breaker(in_browser: InBrowser, broken: UpstreamRow) -> None:
    def journey(open_home: Open) -> None:
        visit = open_home()
        page = visit.page
        expect(page.locator(".rd-chart")).to_have_count(4)
        expect(page.locator(".rd-table")).to_contain_text(broken.provider.name)
        with page.expect_response("**/admin/operations/", timeout=15_000) as refreshed:
            pass
        assert refreshed.value.status == 200
        expect(page.locator(".rd-chart")).to_have_count(4)
        page.get_by_role("button", name="Reset").click()
        expect(page.locator(".rd-state.rd-open")).to_have_count(0)
        assert visit.complaints == []

    in_browser(journey)
    assert state(broken) == "closed"


def test_the_home_works_without_javascript_on_a_phone(in_browser: InBrowser, broken: UpstreamRow) -> None:
    def journey(open_home: Open) -> None:
        visit = open_home(java_script_enabled=False, viewport={"width": 390, "height": 844})
        page = visit.page
        expect(page.locator(".rd-figures")).to_contain_text("321 ms")
        page.get_by_role("button", name="Reset").click()
        expect(page.locator(".rd-state.rd-open")).to_have_count(0)
        assert visit.complaints == []

    in_browser(journey)
    assert state(broken) == "closed"


def test_a_provider_is_tested_from_its_page(in_browser: InBrowser, broken: UpstreamRow) -> None:
    def journey(open_home: Open) -> None:
        visit = open_home()
        page = visit.go(f"/admin/providers/provider/{broken.provider_id}/change/")
        page.get_by_role("link", name="Test this provider").click()
        page.get_by_label("Request").select_option(broken.model)
        page.get_by_role("button", name="Test").click()
        outcome = page.locator(".rd-outcome")
        expect(outcome).to_contain_text("It works")
        expect(outcome).to_contain_text("answered a chat request")
        assert visit.complaints == []

    in_browser(journey)
    assert state(broken) == "closed"


def test_no_page_complains_or_is_wider_than_a_phone(in_browser: InBrowser, broken: UpstreamRow) -> None:
    lists = (
        "access/project", "access/apikey", "access/auditentry", "providers/provider", "providers/modelroute",
        "completions/ledgerentry", "completions/storedbody", "auth/user", "auth/group", "axes/accesslog",
        "tasks/retrypolicy", "django_celery_beat/periodictask", "django_celery_beat/crontabschedule",
        "django_celery_results/taskresult",
    )  # fmt: skip
    adds = (
        "access/project/add",
        "access/apikey/add",
        "providers/provider/add",
        "providers/modelroute/add",
        "django_celery_beat/periodictask/add",
        "tasks/retrypolicy/add",
    )
    change = f"providers/provider/{broken.provider_id}/change"

    def journey(open_home: Open) -> None:
        visit = open_home(viewport={"width": 390, "height": 844}, color_scheme="dark")
        for path in (*lists, *adds, change):
            page = visit.go(f"/admin/{path}/")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
            assert visit.complaints == [], path

    in_browser(journey)
