"""The admin in a real browser: no console error, no foreign request, and it works without JavaScript."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.utils import timezone
from playwright.sync_api import Page, expect, sync_playwright

from apps.completions.models import LedgerEntry
from apps.providers import breaker_board, circuit_breaker
from apps.providers.models import Upstream as UpstreamRow
from tests.conftest import MakeKey, MakeRoute, database_url
from tests.gateway import Gateway

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
PASSWORD = "a password for the browser"
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
Open = Callable[..., "Visit"]
InBrowser = Callable[[Callable[[Open], None]], None]


@dataclass
class Visit:
    """A logged-in page and what went wrong on it."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def go(self, path: str) -> Page:
        """Open a path of the admin."""
        self.page.goto(self.url + path)
        return self.page


class Browsing:
    """Chromium in a thread of its own: Playwright keeps a loop there, which Django and pytest-asyncio must not meet."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="browser")
        self._thread.submit(self._start).result(60)

    def _start(self) -> None:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        assert chromium, "Chromium is not installed; scripts/test needs it (apt-get install chromium)"
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)

    def stop(self) -> None:
        """Close it."""
        self._thread.submit(self._stop).result(60)
        self._thread.shutdown()

    def _stop(self) -> None:
        self._browser.close()
        self._playwright.stop()

    def run(self, url: str, journey: Callable[[Open], None]) -> None:
        """Walk a journey at the gateway of this address."""
        self._thread.submit(self._run, url, journey).result(120)

    def _run(self, url: str, journey: Callable[[Open], None]) -> None:
        contexts = []

        def open_home(**options: Any) -> Visit:
            contexts.append(self._browser.new_context(**options))
            return _log_in(Visit(contexts[-1].new_page(), url))

        try:
            journey(open_home)
        finally:
            for context in contexts:
                context.close()


@pytest.fixture(scope="module")
def browsing() -> Iterator[Browsing]:
    started = Browsing()
    yield started
    started.stop()


@pytest.fixture
def in_browser(transactional_db: None, browsing: Browsing, settings: Any) -> Iterator[InBrowser]:
    """Walk a journey: it is given a function that logs in and opens the home, `open_home(viewport=...)`."""
    get_user_model()._default_manager.create_superuser("operator", password=PASSWORD)  # type: ignore[attr-defined]
    # One of its own: Django keeps the ids of content types in memory, and the flush between tests gives new ones.
    own = Gateway({"REDRIVE_DATABASE_URL": database_url(), "REDRIVE_REDIS_URL": settings.REDRIVE.redis_url})
    yield lambda journey: browsing.run(own.url, journey)
    own.stop()


def _log_in(visit: Visit) -> Visit:
    _listen(visit)
    page = visit.go("/admin/")
    page.fill("#id_username", "operator")
    page.fill("#id_password", PASSWORD)
    page.click("button[type=submit]")
    expect(page).to_have_title("Operations | Redrive")
    return visit


def _listen(visit: Visit) -> None:
    def complain(text: str) -> None:
        visit.complaints.append(text)

    page = visit.page
    page.on("console", lambda said: complain(said.text) if said.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: complain(str(error)))
    page.on("request", lambda sent: None if sent.url.startswith((visit.url, "data:")) else complain(sent.url))
    page.on("response", lambda got: complain(f"{got.status} {got.url}") if got.status >= 400 else None)


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
    )  # fmt: skip
    adds = ("access/project/add", "access/apikey/add", "providers/provider/add", "providers/modelroute/add")
    change = f"providers/provider/{broken.provider_id}/change"

    def journey(open_home: Open) -> None:
        visit = open_home(viewport={"width": 390, "height": 844}, color_scheme="dark")
        for path in (*lists, *adds, change):
            page = visit.go(f"/admin/{path}/")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
            assert visit.complaints == [], path

    in_browser(journey)
