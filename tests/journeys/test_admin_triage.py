"""Triage in a real browser: every page in light and dark, on a phone, by keys alone, and without JavaScript."""

import json
from datetime import timedelta

import pytest
from playwright.sync_api import expect

from apps.access.models import AuditEntry, Project
from apps.dead_letters import tallies
from apps.dead_letters.bulk import pacer, plan
from apps.dead_letters.models import Alert, AlertRule, BulkOperation, DeadLetter, FailureGroup
from apps.providers.errors import UpstreamBroken
from apps.tasks import kinds
from apps.tasks.models import Task, TaskAttempt, TaskPayload
from tests.conftest import MakeKey
from tests.dead_letters.conftest import MakeLetter, make_kind, make_letter, make_task
from tests.journeys.accessibility import grave_violations
from tests.journeys.browser import InBrowser, Open, Visit
from tests.races import together

__all__ = ["make_kind", "make_letter", "make_task"]
pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
CUT_OFF = """[...document.querySelectorAll("#result_list td")]
  .filter(cell => cell.scrollHeight > cell.clientHeight + 1 || cell.scrollWidth > cell.clientWidth + 1)
  .map(cell => cell.className.split(" ")[0])"""
PHONE = {"viewport": {"width": 390, "height": 844}}
WORDS = "Write to Ms. Miller about her overdue invoice."
TRACEBACK = (
    "Traceback (most recent call last):\n"
    '  File "/srv/redrive/apps/tasks/attempt.py", line 9, in _within_its_time\n    boom()\nKeyError: 1'
)


@pytest.fixture
def letters(make_letter: MakeLetter, make_key: MakeKey) -> list[DeadLetter]:
    """Two groups with three letters each."""
    key, _ = make_key()
    Project.objects.filter(pk=key.project_id).update(name="billing")
    body = {"model": "m", "messages": [{"role": "user", "content": WORDS}]}
    found = []
    for words, upstream in (("Overloaded", "anthropic/claude-sonnet-4-5"), ("out of memory " * 30, "vllm/" + "m" * 60)):
        for _ in range(3):
            letter = make_letter(
                kind=kinds.find("chat_completion"), args=body, error=UpstreamBroken(words), upstream=upstream,
                project_id=key.project_id, api_key_id=key.pk,
            )  # fmt: skip
            TaskAttempt.objects.filter(task_id=letter.task_id).update(traceback=TRACEBACK)
            found.append(letter)
    tallies.fold()
    return found


def pages_of(letters: list[DeadLetter]) -> list[str]:
    """The addresses of triage below /admin/, one with each kind of row."""
    letter = letters[0]
    operation = plan.create("redrive", query="state:open")
    pacer.tick()
    rule = AlertRule.objects.filter(event="rate").get()
    alert = Alert.objects.create(rule=rule, event="rate", severity="critical", subject="chat_completion", title="t")
    groups, group = "dead_letters/failuregroup", f"dead_letters/failuregroup/{letter.group_id}"
    own = f"dead_letters/deadletter/{letter.pk}"
    return [
        "", f"{groups}/", f"{groups}/?tab=resolved", f"{groups}/?q=nothing-like-it", f"{group}/change/",
        f"{groups}/{letters[-1].group_id}/change/", f"dead_letters/deadletter/{letters[-1].pk}/change/",
        *(f"{group}/{name}/" for name in ("assign", "snooze", "resolve", "note", "hold")),
        "dead_letters/deadletter/", "dead_letters/deadletter/?q=code:none", f"{own}/change/",
        *(f"{own}/{name}/" for name in ("redrive", "discard", "edit")),
        "dead_letters/bulkoperation/", f"dead_letters/bulkoperation/{operation.pk}/change/", "access/auditentry/",
        "tasks/queuestate/", "tasks/workerpresence/", "tasks/task/", "dead_letters/alert/", "dead_letters/alertrule/",
        "dead_letters/alertchannel/", "dead_letters/alertchannel/add/", f"dead_letters/alert/{alert.pk}/change/",
        f"dead_letters/alertrule/{rule.pk}/change/", "access/operatortoken/", "access/operatortoken/add/",
        *(f"dead_letters/bulkoperation/{other.pk}/change/" for other in _of_every_state(operation)),
    ]  # fmt: skip


def _of_every_state(operation: BulkOperation) -> list[BulkOperation]:
    """Others as they look while they are held, run, have stopped and are done."""
    made = []
    for state in ("holding", "canary", "running", "stopped", "done"):
        final = {"finished_at": operation.created_at} if state == "done" else {}
        made.append(
            BulkOperation.objects.create(
                action="redrive", title=state, created_by="operator", started_by="operator", state=state, total=40,
                released=10, succeeded=6, failed=2, canary=3, started_at=operation.created_at,
                release_at=operation.created_at + timedelta(hours=1), stop_reason="2 of 8 failed again.", **final,
            )
        )  # fmt: skip
    return made


@pytest.mark.parametrize("look", [{"color_scheme": "light"}, {**PHONE, "color_scheme": "dark"}], ids=["desk", "phone"])
def test_no_page_complains_is_too_wide_cuts_off_or_keeps_anybody_out(
    in_browser: InBrowser, letters: list[DeadLetter], look: dict[str, object]
) -> None:
    paths = pages_of(letters)

    def journey(open_home: Open) -> None:
        visit = open_home(**look)
        wrong = []
        for path in paths:
            page = visit.go(f"/admin/{path}")
            width = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            wrong += [f"{path}: {width} px too wide"] if width > 0 else []
            wrong += [f"{path}: {name} is cut off" for name in page.evaluate(CUT_OFF)]
            wrong += [f"{path}: {one}" for one in grave_violations(page)]
            wrong += [f"{path}: {one}" for one in visit.complaints]
            visit.complaints.clear()
        assert wrong == []

    in_browser(journey)


def test_an_operator_reads_edits_and_redrives_a_letter(in_browser: InBrowser, letters: list[DeadLetter]) -> None:
    letter = letters[0]

    def journey(open_home: Open) -> None:
        visit = open_home()
        page = visit.page
        page.get_by_role("link", name="model_error 502 · anthropic/claude-sonnet-4-5").click()
        expect(page.locator(".rd-verdict")).to_contain_text("3 times since")
        page.get_by_role("link", name=str(letter)).click()
        expect(page.locator(".rd-verdict")).to_contain_text("2 others like it open")
        expect(page.locator("pre", has_text="apps/tasks/attempt.py").first).to_be_visible()
        assert WORDS not in page.content()
        page.get_by_role("link", name="Edit and redrive").click()
        page.get_by_role("button", name="Open the editor").click()
        editor = page.get_by_label("Payload")
        assert WORDS in editor.input_value()
        assert grave_violations(page) == []
        editor.fill('{"model": "m", "messages": []}')
        page.get_by_label("Reason").fill("the invoice was paid")
        page.get_by_role("button", name="Edit and redrive").click()
        expect(page.locator("form.mt-6")).to_contain_text("messages")  # the field at fault
        editor.fill(json.dumps({"model": "m", "messages": [{"role": "user", "content": "Thank Ms. Miller."}]}))
        page.get_by_role("button", name="Show the difference").click()
        expect(page.get_by_label("Difference")).to_contain_text("Thank Ms. Miller.")
        assert grave_violations(page) == []
        page.get_by_role("button", name="Edit and redrive").click()
        expect(page.locator("body")).to_contain_text("Edited and redriven")
        expect(page.get_by_text("redriven", exact=True).first).to_be_visible()
        assert visit.complaints == []

    in_browser(journey)
    assert Task.objects.get(pk=letter.task_id).state == "pending"
    bodies = list(
        TaskPayload.objects.filter(task_id=letter.task_id).order_by("revision").values_list("body", flat=True)
    )
    assert ["Miller about" in body for body in bodies] == [True, False]
    assert {"edit", "redrive"} <= set(AuditEntry.objects.values_list("action", flat=True))
    assert not AuditEntry.objects.filter(after__icontains="Thank").exists()


def test_groups_are_chosen_and_opened_by_keys_alone(in_browser: InBrowser, letters: list[DeadLetter]) -> None:
    def journey(open_home: Open) -> None:
        visit = open_home()
        page = visit.go("/admin/dead_letters/failuregroup/")
        for key in ("j", "j", "x", "k", "x"):
            page.keyboard.press(key)
        expect(page.locator("input[name=group]:checked")).to_have_count(2)
        page.keyboard.press("?")
        expect(page.locator(".rd-keys")).to_contain_text("next row")
        page.keyboard.press("Escape")
        expect(page.locator(".rd-keys")).to_have_count(0)
        page.keyboard.press("/")
        page.keyboard.type("memory")
        page.keyboard.press("Enter")
        expect(page.locator("tr[data-row]")).to_have_count(1)
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        expect(page.locator(".rd-title")).to_contain_text("vllm")
        assert visit.complaints == []

    in_browser(journey)


def test_the_home_does_not_refresh_itself_while_groups_are_chosen(
    in_browser: InBrowser, letters: list[DeadLetter]
) -> None:
    def journey(open_home: Open) -> None:
        visit = open_home()
        page = visit.page
        with page.expect_response("**/admin/operations/", timeout=15_000):
            pass
        page.locator("input[name=group]").first.check()
        asked: list[str] = []
        page.on("request", lambda sent: asked.append(sent.url) if sent.url.endswith("/operations/") else None)
        page.wait_for_timeout(6_000)  # longer than the pace of the refresh
        assert asked == []
        expect(page.locator("input[name=group]:checked")).to_have_count(1)

    in_browser(journey)


def test_a_bulk_discard_is_made_and_taken_back_on_a_phone_without_javascript(
    in_browser: InBrowser, letters: list[DeadLetter]
) -> None:
    def journey(open_home: Open) -> None:
        visit = open_home(java_script_enabled=False, **PHONE)
        page = visit.go("/admin/dead_letters/failuregroup/")
        page.get_by_label("All 2 groups").check()
        page.get_by_role("button", name="Discard…").click()
        _tick(visit)
        page.locator("#id_reason").fill("sent twice")
        page.get_by_role("button", name="Start").click()
        expect(page.locator("body")).to_contain_text("Undo")
        page.get_by_role("button", name="Undo").click()
        expect(page.get_by_role("button", name="Start")).to_have_count(1)
        assert visit.complaints == []

    in_browser(journey)
    operation = BulkOperation.objects.get()
    assert (operation.state, operation.reason, operation.released) == ("ready", "sent twice", 0)
    audit = AuditEntry.objects.filter(object_id=str(operation.pk)).order_by("at")
    assert list(audit.values_list("action", flat=True)) == ["create", "start", "undo"]
    assert FailureGroup.objects.filter(open_count=3).count() == 2


def _tick(visit: Visit) -> None:
    """Let the clock count, in a thread that is not the browser's, and look again."""
    assert together(1, lambda _: pacer.tick()) == [1]
    visit.page.reload()
