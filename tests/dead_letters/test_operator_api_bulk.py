"""Bulk operations and alerts over /ops/api/: made, steered and watched by scripts as in the admin."""

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.access.models import AuditEntry
from apps.dead_letters import bulk_states
from apps.dead_letters.bulk import control, plan
from apps.dead_letters.models import Alert, BulkItem, BulkOperation, DeadLetter
from apps.dead_letters.queries import shown_id
from tests.dead_letters.conftest import MakeLetter
from tests.dead_letters.test_bulk import begun, counted, tick
from tests.operators import post, refusal, walk
from tests.tasks.conftest import AsPerson, MakeKind

pytestmark = pytest.mark.django_db
BULK, ALERTS = "/ops/api/bulk/", "/ops/api/alerts/"
NOTHING = "0197f000-0000-7000-8000-000000000000"
Letters = list[DeadLetter]


@pytest.fixture
def letters(make_letter: MakeLetter, make_kind: MakeKind) -> Letters:
    """Six of one group."""
    kind = make_kind()
    return [make_letter(kind=kind) for _ in range(6)]


def at(operation: Any, action: str = "") -> str:
    return f"{BULK}{getattr(operation, 'pk', operation)}/{action + '/' if action else ''}"


def test_it_is_answered_while_it_is_counted_and_says_where_it_is(admin_client: Client, letters: Letters) -> None:
    response = post(admin_client, BULK, action="redrive", groups=[letters[0].group_id])
    made = response.json()
    assert (response.status_code, made["state"], made["total"]) == (202, "counting", 0)
    assert response["Location"] == at(made["id"])
    assert admin_client.get(response["Location"]).json()["state"] == "counting"
    tick(BulkOperation.objects.get(pk=made["id"]))
    found = admin_client.get(response["Location"]).json()
    assert (found["state"], found["pending"], found["report"]["percent"]) == ("ready", 6, 0)
    assert found["breakdown"]["kind"] == [[letters[0].kind, 6]]
    assert found["cost_usd"] is not None
    assert AuditEntry.objects.get().action == "create"


def test_the_clock_runs_what_a_script_steers(admin_client: Client, letters: Letters) -> None:
    operation = counted(groups=[letters[0].group_id])
    assert post(admin_client, at(operation, "start"), canary=2, rate=5, reason="mended").json()["state"] == "holding"
    assert admin_client.get(at(operation)).json()["report"]["hold_left"] > 5
    assert post(admin_client, at(operation, "undo")).json()["state"] == "ready"
    post(admin_client, at(operation, "start"), canary=2, rate=5)
    tick(operation, seconds=11)
    found = post(admin_client, at(operation, "pause"), reason="lunch").json()
    assert (found["state"], found["released"], found["in_flight"]) == ("paused", 2, 2)
    assert post(admin_client, at(operation, "resume")).json()["state"] == "canary"
    assert post(admin_client, at(operation, "pace"), rate=7.5).json()["rate"] == 7.5
    found = post(admin_client, at(operation, "cancel"), reason="enough").json()
    assert (found["state"], found["pending"], bool(found["finished_at"])) == ("cancelled", 4, True)
    for action in ("start", "undo", "pause", "resume", "pace", "cancel"):
        refusal(post(admin_client, at(operation, action)), 409, "conflict")


def test_its_items_are_paged_and_told_apart(admin_client: Client, letters: Letters) -> None:
    operation = begun(what={"groups": [letters[0].group_id]}, canary=2)
    with CaptureQueriesContext(connection) as seen:
        rows = [row for page in walk(admin_client, f"{at(operation, 'items')}?limit=4") for row in page]
    assert [row["letter"] for row in rows] == sorted((shown_id(one.pk) for one in letters), reverse=True)
    assert not any("COUNT(" in query["sql"].upper() for query in seen)
    released = admin_client.get(at(operation, "items"), {"state": "released"}).json()["results"]
    assert {row["letter"] for row in released} == {shown_id(one.pk) for one in letters[:2]}
    assert {row["state"] for row in rows} == {"pending", "released"}
    for name, value in {"state": "x", "stat": "released"}.items():
        refusal(admin_client.get(at(operation, "items"), {name: value}), 400, "validation_error", name)


def test_operations_are_paged_filtered_and_take_few_queries(admin_client: Client, letters: Letters) -> None:
    first = plan.create("redrive", groups=[letters[0].group_id])
    others = [plan.create("discard", query=f"code:c{number}") for number in range(6)]
    BulkOperation.objects.update(created_at=first.created_at)
    with CaptureQueriesContext(connection) as seen:
        pages = walk(admin_client, f"{BULK}?limit=3")
    assert sorted(row["id"] for page in pages for row in page) == sorted(str(one.pk) for one in [first, *others])
    assert len(seen) <= 15 * 2 * len(pages)
    assert not any("COUNT(" in query["sql"].upper() for query in seen)
    for query in ({"action": "redrive"}, {"group": letters[0].group_id}, {"action": "redrive", "state": "counting"}):
        (row,) = admin_client.get(BULK, query).json()["results"]
        assert row["id"] == str(first.pk)
    assert admin_client.get(BULK, {"state": "done"}).json()["results"] == []


def test_a_group_that_another_operation_works_on_is_a_conflict_that_names_both(
    admin_client: Client, letters: Letters
) -> None:
    first = plan.create("redrive", groups=[letters[0].group_id])
    error = refusal(post(admin_client, BULK, action="discard", groups=[letters[0].group_id]), 409, "conflict")
    assert error["details"] == {"group": letters[0].group_id, "operation": str(first.pk)}


def test_discards_are_restored_from_the_operation_that_made_them(admin_client: Client, letters: Letters) -> None:
    operation = counted("discard", query="state:open")
    refusal(post(admin_client, at(operation, "start")), 400, "validation_error", "reason")
    post(admin_client, at(operation, "start"), reason="sent twice", code="duplicate")
    tick(operation, seconds=11)
    tick(operation, seconds=1)
    tick(operation)
    assert {one.discard_code for one in DeadLetter.objects.all()} == {"duplicate"}
    made = post(admin_client, BULK, action="restore", source=str(operation.pk)).json()
    assert tick(BulkOperation.objects.get(pk=made["id"])).pending == 6


STEPS = ("start", "undo", "pause", "resume", "pace", "cancel")


@pytest.mark.parametrize(
    ("action", "permission"), [("redrive", "redrive"), ("discard", "discard"), ("restore", "discard")]
)
@pytest.mark.parametrize("may", [False, True])
def test_making_and_steering_need_the_permission_of_what_it_does(
    as_person: AsPerson, letters: Letters, action: str, permission: str, may: bool
) -> None:
    wrong = {"redrive", "discard"} - {permission}
    given = [permission] if may else list(wrong)
    client = as_person("view_bulkoperation", "change_bulkoperation", *(f"{one}_bulkoperation" for one in given))
    response = post(client, BULK, action=action, q="code:none")
    assert response.status_code == (202 if may else 403)
    operation = plan.create(action, query="code:nothing")
    entries = AuditEntry.objects.count()
    for step in STEPS:
        response = post(client, at(operation, step))
        assert response.status_code in ({200, 409} if may else {403}), step
        assert client.get(at(operation, step)).status_code in {403, 405}
    assert may or AuditEntry.objects.count() == entries
    assert client.get(at(operation)).status_code == 200


def test_an_operation_needs_the_permission_to_look_too(as_person: AsPerson, letters: Letters) -> None:
    operation = counted(groups=[letters[0].group_id])
    client = as_person("redrive_bulkoperation", "discard_bulkoperation", "add_bulkoperation")
    refusal(post(client, BULK, action="redrive", q="state:open"), 403, "permission_denied")
    for step in STEPS:
        refusal(post(client, at(operation, step)), 403, "permission_denied")
    for url in (BULK, at(operation), at(operation, "items")):
        refusal(client.get(url), 403, "permission_denied")
    assert control.find(operation.pk).state == bulk_states.READY


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    [
        ("", {}, 400, "validation_error", "action"),
        ("", {"action": "burn"}, 400, "validation_error", "action"),
        ("", {"action": "redrive"}, 400, "validation_error", "groups"),
        ("", {"action": "redrive", "groups": "f"}, 400, "validation_error", "groups"),
        ("", {"action": "redrive", "groups": ["none"]}, 404, "not_found", None),
        ("", {"action": "redrive", "q": "colour:red"}, 400, "validation_error", "q"),
        ("", {"action": "redrive", "q": "x", "ids": [1]}, 400, "validation_error", "ids"),
        ("", {"action": "restore", "source": NOTHING}, 404, "not_found", None),
        ("", {"action": "restore", "source": "x"}, 400, "validation_error", "source"),
        ("nonsense/", None, 404, "not_found", None),
        (f"{NOTHING}/", None, 404, "not_found", None),
        (f"{NOTHING}/items/", None, 404, "not_found", None),
        *((f"{NOTHING}/{step}/", {}, 404, "not_found", None) for step in STEPS),
        ("READY/start/", {"rate": 0}, 400, "validation_error", "rate"),
        ("READY/start/", {"rate": "fast"}, 400, "validation_error", "rate"),
        ("READY/start/", {"canary": 7}, 400, "validation_error", "canary"),
        ("READY/start/", {"stop_percent": 0}, 400, "validation_error", "stop_percent"),
        ("READY/start/", {"max_in_flight": 0}, 400, "validation_error", "max_in_flight"),
        ("READY/start/", {"now": True}, 400, "validation_error", "now"),
        ("READY/pace/", {"rate": 1e9}, 400, "validation_error", "rate"),
        ("READY/undo/", {"reason": "r"}, 400, "validation_error", "reason"),
        ("READY/undo/", {}, 409, "conflict", None),
        ("?state=nonsense", None, 400, "validation_error", "state"),
        ("?since=nonsense", None, 400, "validation_error", "since"),
        ("?cursor=cD1ub25zZW5zZQ==", None, 404, "not_found", None),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_one_body(
    admin_client: Client, letters: Letters, path: str, body: Any, status: int, code: str, param: str | None
) -> None:
    operation = counted(groups=[letters[0].group_id])
    url = BULK + path.replace("READY", str(operation.pk))
    response = admin_client.get(url) if body is None else post(admin_client, url, **body)
    refusal(response, status, code, param)
    assert BulkOperation.objects.count() == 1
    assert not BulkItem.objects.exclude(state="pending").exists()


def test_a_large_one_starts_only_with_its_number(admin_client: Client, letters: Letters) -> None:
    operation = counted("discard", query="state:open")
    BulkOperation.objects.filter(pk=operation.pk).update(total=101)
    url = at(operation, "start")
    assert "101" in refusal(post(admin_client, url, reason="r"), 400, "validation_error", "confirm")["message"]
    assert post(admin_client, url, reason="r", confirm=101).json()["state"] == "holding"


def make_alerts(count: int) -> list[Alert]:
    """Of one moment."""
    now = timezone.now()
    return Alert.objects.bulk_create(
        Alert(event="new_group", severity="warning", subject=f"f{number}", title="A new group", opened_at=now)
        for number in range(count)
    )


def test_alerts_are_paged_filtered_and_acknowledged(admin_client: Client) -> None:
    made = make_alerts(7)
    with CaptureQueriesContext(connection) as seen:
        pages = walk(admin_client, f"{ALERTS}?limit=3")
    assert [row["id"] for page in pages for row in page] == sorted((str(one.pk) for one in made), reverse=True)
    assert not any("COUNT(" in query["sql"].upper() for query in seen)
    url = f"{ALERTS}{made[0].pk}/"
    found = post(admin_client, f"{url}acknowledge/", reason="on it").json()
    assert (found["state"], found["acknowledged_by"]) == ("acknowledged", "admin")
    assert admin_client.get(url).json() == found
    refusal(post(admin_client, f"{url}acknowledge/"), 409, "conflict")
    for query in ({"state": "acknowledged"}, {"subject": "f0"}, {"severity": "warning", "subject": "f0"}):
        assert admin_client.get(ALERTS, query).json()["results"] == [found]
    assert admin_client.get(ALERTS, {"event": "rate"}).json()["results"] == []
    assert AuditEntry.objects.get().reason == "on it"


@pytest.mark.parametrize("given", [["acknowledge_alert"], ["view_alert", "change_alert"]])
def test_to_acknowledge_and_to_look_are_two_permissions(as_person: AsPerson, given: list[str]) -> None:
    (alert,), client = make_alerts(1), as_person(*given)
    refusal(post(client, f"{ALERTS}{alert.pk}/acknowledge/"), 403, "permission_denied")
    assert client.get(ALERTS).status_code == (200 if "view_alert" in given else 403)
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    [
        ("nonsense/", None, 404, "not_found", None),
        (f"{NOTHING}/", None, 404, "not_found", None),
        ("nonsense/acknowledge/", {}, 404, "not_found", None),
        (f"{NOTHING}/acknowledge/", {}, 404, "not_found", None),
        (f"{NOTHING}/acknowledge/", {"x": 1}, 400, "validation_error", "x"),
        ("?state=nonsense", None, 400, "validation_error", "state"),
        ("", {}, 405, "method_not_allowed", None),
    ],
)
def test_an_alert_that_is_none_is_refused_with_the_one_body(
    admin_client: Client, path: str, body: Any, status: int, code: str, param: str | None
) -> None:
    url = f"{ALERTS}{path}"
    response = admin_client.get(url) if body is None else post(admin_client, url, **body)
    refusal(response, status, code, param)
