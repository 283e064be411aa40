"""Chromium for the journeys through the admin: it logs in, and hears every complaint of a page."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from playwright.sync_api import Page, expect, sync_playwright

from tests.conftest import database_url
from tests.gateway import Gateway

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
