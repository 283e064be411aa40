"""Tasks, queues and workers in a real browser: on a desk, on a phone, without JavaScript, in the dark."""

import json
from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from apps.access.models import AuditEntry
from apps.tasks import kinds, queues
from apps.tasks.enqueue import NewTask, insert
from apps.tasks.models import Task, TaskAttempt, WorkerPresence
from tests.conftest import MakeKey
from tests.journeys.browser import InBrowser, Open

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
WORDS = "Write to Ms. Miller about her overdue invoice."
PHONE = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}


@pytest.fixture
def task(make_key: MakeKey) -> Task:
    """One that was tried in vain and waits for its next try."""
    key, _ = make_key()
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": WORDS}]})
    new = NewTask(key.project_id, kinds.find("chat_completion"), body, api_key_id=key.pk, delay=600.0)
    insert([new])
    now = timezone.now()
    TaskAttempt.objects.create(
        task_id=new.id, number=1, cycle=1, token=1, worker=uuid4(), started_at=now, outcome="failed", charged=True,
        error_code="model_error", error_status=503, error_message="overloaded " * 20, upstream="openai/" + "m" * 60,
        traceback="Traceback\n" + "  File somewhere in a long line, " * 20,
    )  # fmt: skip
    Task.objects.filter(pk=new.id).update(state="retrying", attempt=1, started_at=now)
    WorkerPresence.objects.create(
        id=uuid4(), lock_key=1, host="a-rather-long-host-name.eu-central.example.com", pid=42, queues="high,default",
        slots=500, in_flight=3, expires_at=now + timedelta(minutes=10),
    )  # fmt: skip
    return Task.objects.get(pk=new.id)


def test_an_operator_finds_a_task_looks_at_its_texts_and_cancels_it(in_browser: InBrowser, task: Task) -> None:
    def journey(open_home: Open) -> None:
        visit = open_home()
        page = visit.page
        expect(page.locator(".rd-strip")).to_contain_text("1 worker")
        visit.go("/admin/tasks/task/")
        page.get_by_role("link", name=str(task)).click()
        expect(page.locator(".rd-state.rd-failed")).to_have_count(1)
        expect(page.locator("pre", has_text="Traceback")).to_be_hidden()
        page.get_by_text("Traceback", exact=True).click()
        expect(page.locator("pre", has_text="Traceback")).to_be_visible()
        assert WORDS not in page.content()
        page.get_by_role("link", name="Show them").click()
        page.get_by_label("Reason").fill("ticket 7")
        page.get_by_role("button", name="Show").click()
        expect(page.locator(".rd-code").first).to_contain_text(WORDS)
        visit.go(f"/admin/tasks/task/{task.pk}/change/")
        page.get_by_role("link", name="Cancel").click()
        page.get_by_role("button", name="Cancel the task").click()
        expect(page.locator("body")).to_contain_text("The task is cancelled")
        assert visit.complaints == []

    in_browser(journey)
    assert Task.objects.get(pk=task.pk).state == "cancelled"
    assert set(AuditEntry.objects.values_list("action", "reason")) >= {("reveal", "ticket 7"), ("cancel", "")}


def test_a_queue_is_paused_and_resumed_on_a_phone_without_javascript(in_browser: InBrowser, task: Task) -> None:
    def journey(open_home: Open) -> None:
        visit = open_home(java_script_enabled=False, **PHONE)
        page = visit.go("/admin/tasks/queuestate/")
        low = page.locator("tr", has=page.get_by_role("link", name="low", exact=True))
        low.get_by_role("link", name="Pause").click()
        page.get_by_label("Reason").fill("receiver is down")
        page.get_by_role("button", name="Pause").click()
        expect(low).to_contain_text("receiver is down")
        low.get_by_role("link", name="Resume").click()
        page.get_by_role("button", name="Resume").click()
        expect(low.get_by_role("link", name="Pause")).to_have_count(1)
        assert visit.complaints == []

    in_browser(journey)
    assert not any(one.is_paused for one in queues.overview())
    assert list(AuditEntry.objects.filter(object_id="low").order_by("at").values_list("action", flat=True)) == [
        "pause",
        "resume",
    ]


def test_the_boards_refresh_themselves(in_browser: InBrowser, task: Task) -> None:
    def journey(open_home: Open) -> None:
        visit = open_home()
        page = visit.go("/admin/tasks/workerpresence/")
        expect(page.locator(".rd-state.rd-working")).to_have_count(1)
        with page.expect_response("**/admin/tasks/workerpresence/", timeout=15_000) as refreshed:
            pass
        assert refreshed.value.status == 200
        expect(page.locator("#board")).to_have_count(1)
        expect(page.locator("#nav-sidebar")).to_have_count(1)  # the board alone was replaced
        assert visit.complaints == []

    in_browser(journey)


def test_no_page_complains_or_is_wider_than_a_phone(in_browser: InBrowser, task: Task) -> None:
    own, worker = f"tasks/task/{task.pk}", WorkerPresence.objects.get()
    paths = (
        "tasks/task", f"{own}/change", f"{own}/cancel", f"{own}/reveal", "tasks/queuestate",
        "tasks/queuestate/low/pause", "tasks/workerpresence", f"tasks/workerpresence/{worker.pk}/change",
    )  # fmt: skip

    def journey(open_home: Open) -> None:
        visit = open_home(**PHONE)
        for path in paths:
            page = visit.go(f"/admin/{path}/")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
            assert visit.complaints == [], path

    in_browser(journey)
