"""The pages of bulk operations: counting, the form that starts one, its progress, and what people do to it."""

from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils.html import escape

from apps.access.models import Project
from apps.dead_letters import search, triage
from apps.dead_letters.bulk import control, pacer, plan
from apps.dead_letters.models import BulkOperation, DeadLetter
from tests.conftest import MakeKey
from tests.dead_letters.conftest import MakeLetter
from tests.dead_letters.operations import tick
from tests.tasks.conftest import AsPerson, MakeKind

pytestmark = pytest.mark.django_db
LIST = reverse("admin:dead_letters_bulkoperation_changelist")
PACE = {"rate": "5", "max_in_flight": "7", "canary": "2", "stop_percent": "30", "reason": "mended"}


def page(operation: BulkOperation, action: str = "change") -> str:
    return reverse(f"admin:dead_letters_bulkoperation_{action}", args=[operation.pk])


@pytest.fixture
def letters(make_letter: MakeLetter, make_kind: MakeKind) -> list[DeadLetter]:
    """Four of one group."""
    kind = make_kind()
    return [make_letter(kind=kind) for _ in range(4)]


@pytest.fixture
def operation(letters: list[DeadLetter]) -> BulkOperation:
    """A redrive of them, counted."""
    made = plan.create("redrive", groups=[letters[0].group_id])
    pacer.tick()
    made.refresh_from_db()
    return made


def state(operation: BulkOperation) -> str:
    operation.refresh_from_db()
    return operation.state


def test_the_page_refreshes_itself_while_it_is_counted_and_then_offers_the_start(
    admin_client: Client, letters: list[DeadLetter]
) -> None:
    made = plan.create("redrive", query="state:open")
    html = admin_client.get(page(made)).content.decode()
    assert "Counting…" in html
    assert "every 1s" in html
    assert "No clock ticks" in html
    pacer.tick()
    html = admin_client.get(page(made)).content.decode()
    assert "every 1s" not in html  # nobody's typing is interrupted
    assert page(made, "start") in html
    assert "4 tasks go back to work" in html


def test_a_start_takes_its_pace_from_the_form_and_can_be_undone(admin_client: Client, operation: BulkOperation) -> None:
    assert admin_client.get(page(operation, "start"))["Location"] == page(operation)
    assert state(operation) == "ready"
    assert admin_client.post(page(operation, "start"), PACE)["Location"] == page(operation)
    assert state(operation) == "holding"
    assert (operation.rate, operation.max_in_flight, operation.canary, operation.stop_percent) == (5.0, 7, 2, 30)
    assert (operation.reason, operation.started_by) == ("mended", "admin")
    assert "It begins in" in admin_client.get(page(operation)).content.decode()
    admin_client.post(page(operation, "undo"))
    assert state(operation) == "ready"
    assert LogEntry.objects.count() == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [("rate", "0"), ("rate", "x"), ("max_in_flight", "0"), ("canary", "5"), ("canary", "-1"), ("stop_percent", "101")],
)
def test_a_start_with_numbers_that_make_no_sense_is_asked_again(
    admin_client: Client, operation: BulkOperation, field: str, value: str
) -> None:
    response = admin_client.post(page(operation, "start"), {**PACE, field: value})
    assert response.status_code == 200
    assert response.context["form"].errors[field]
    assert state(operation) == "ready"


def test_a_large_one_asks_for_its_number(admin_client: Client, operation: BulkOperation) -> None:
    BulkOperation.objects.filter(pk=operation.pk).update(total=1001)
    assert "Type the number of letters" in admin_client.get(page(operation)).content.decode()
    response = admin_client.post(page(operation, "start"), {**PACE, "confirm": "1000"})
    assert response.context["form"].errors["confirm"]
    admin_client.post(page(operation, "start"), {**PACE, "confirm": "1001"})
    assert state(operation) == "holding"


def test_it_is_paused_resumed_paced_and_cancelled_by_post_alone(admin_client: Client, operation: BulkOperation) -> None:
    BulkOperation.objects.filter(pk=operation.pk).update(state="running")
    for action, expected in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        admin_client.get(page(operation, action))
        before = state(operation)
        admin_client.post(page(operation, action))
        assert (before != expected, state(operation)) == (True, expected)
        if action == "resume":
            admin_client.post(page(operation, "pace"), {"rate": "3", "max_in_flight": "9"})
            admin_client.post(page(operation, "pace"), {"rate": "-3", "max_in_flight": "9"})
            operation.refresh_from_db()
            assert (operation.rate, operation.max_in_flight) == (3.0, 9)
    response = admin_client.post(page(operation, "pause"), follow=True)
    assert "The operation is cancelled" in response.content.decode()


def test_what_a_discard_has_decided_can_be_restored_from_its_page(
    admin_client: Client, letters: list[DeadLetter]
) -> None:
    made = plan.create("discard", query="state:open")
    pacer.tick()
    control.start(made.pk, reason="r", code="test")
    BulkOperation.objects.filter(pk=made.pk).update(state="done", finished_at=made.created_at, released=4)
    assert "Restore what it discarded" in admin_client.get(page(made)).content.decode()
    admin_client.get(page(made, "take_back"))
    assert BulkOperation.objects.count() == 1
    response = admin_client.post(page(made, "take_back"))
    back = BulkOperation.objects.get(action="restore")
    assert response["Location"] == page(back)
    assert back.source == made.pk


def test_the_list_and_the_page_keep_within_their_queries(
    admin_client: Client, operation: BulkOperation, letters: list[DeadLetter]
) -> None:
    for url in (LIST, page(operation)):
        with CaptureQueriesContext(connection) as captured:
            assert admin_client.get(url).status_code == 200
        assert len(captured) <= 15, [query["sql"][:120] for query in captured]


def test_who_may_only_look_starts_nothing(as_person: AsPerson, operation: BulkOperation) -> None:
    client = as_person("view_bulkoperation")
    html = client.get(page(operation)).content.decode()
    assert page(operation, "start") not in html
    for action in ("start", "undo", "pause", "resume", "cancel", "pace", "take_back"):
        assert client.post(page(operation, action), PACE).status_code == 403, action
    assert state(operation) == "ready"


def test_who_may_discard_does_not_start_a_redrive(as_person: AsPerson, operation: BulkOperation) -> None:
    client = as_person("view_bulkoperation", "discard_bulkoperation")
    assert page(operation, "start") not in client.get(page(operation)).content.decode()
    assert client.post(page(operation, "cancel")).status_code == 403
    response = client.post(page(operation, "start"), PACE)
    assert response.status_code in (302, 403)
    assert state(operation) == "ready"


def test_a_search_among_letters_becomes_an_operation(admin_client: Client, letters: list[DeadLetter]) -> None:
    act = reverse("admin:dead_letters_deadletter_act")
    assert admin_client.get(act).status_code == 405
    admin_client.post(act, {"act": "redrive", "q": f"kind:{letters[0].kind}"})
    made: Any = BulkOperation.objects.get()
    assert made.query == f"kind:{letters[0].kind}"
    admin_client.post(act, {"act": "redrive", "q": "colour:red"})
    admin_client.post(act, {"act": "explode", "q": ""})
    assert BulkOperation.objects.count() == 1


def test_all_that_can_be_restored_are_those_that_were_discarded(
    admin_client: Client, letters: list[DeadLetter]
) -> None:
    triage.discard(letters[0].pk, reason="r")
    admin_client.post(reverse("admin:dead_letters_deadletter_act"), {"act": "restore", "q": ""})
    operation = BulkOperation.objects.get()
    tick(operation)
    assert (operation.state, operation.pending) == ("ready", 1)


def test_what_the_list_offers_to_decide_is_what_it_shows(
    admin_client: Client, letters: list[DeadLetter], make_letter: MakeLetter, make_key: MakeKey
) -> None:
    key, _ = make_key(project=Project.objects.create(name="a b"))
    mine = make_letter(project_id=key.project_id)
    asked = {"state__exact": "open", "kind": mine.kind, "queue": mine.queue, "project__id__exact": str(key.project_id)}
    response = admin_client.get(reverse("admin:dead_letters_deadletter_changelist"), asked)
    assert [row.pk for row in response.context["cl"].result_list] == [mine.pk]
    query = response.context["query"]
    assert list(search.letters(search.parse(query)).values_list("pk", flat=True)) == [mine.pk]
    assert escape(query) in response.content.decode()
    days = {"q": f"kind:{mine.kind}", "created_at_from": "2020-01-01"}
    html = admin_client.get(reverse("admin:dead_letters_deadletter_changelist"), days).content.decode()
    assert 'name="act"' not in html
    assert "instead of by days" in html
    link = "?q=" + quote('project:"a b" state:open')
    assert link in admin_client.get(reverse("admin:dead_letters_deadletter_change", args=[mine.pk])).content.decode()


def test_after_an_undo_there_is_one_place_to_set_the_pace(admin_client: Client, operation: BulkOperation) -> None:
    control.start(operation.pk)
    assert "Change the pace" in admin_client.get(page(operation)).content.decode()
    control.undo(operation.pk)
    html = admin_client.get(page(operation)).content.decode()
    assert "Change the pace" not in html  # the form that starts it has the pace
    assert html.count('name="rate"') == 1


def test_what_was_done_leaves_out_what_is_empty(admin_client: Client, operation: BulkOperation) -> None:
    html = " ".join(admin_client.get(page(operation)).content.decode().split())
    assert "action: redrive, groups: 1" in html
    assert "query:" not in html


def test_an_empty_list_says_once_that_it_is_empty(admin_client: Client) -> None:
    html = admin_client.get(LIST).content.decode()
    assert "Nobody has made a bulk operation yet" in html
    assert "No results found" not in html
