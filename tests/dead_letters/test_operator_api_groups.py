"""Failure groups over /ops/api/: the same verbs and permissions as in the admin."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.access.models import AuditEntry
from apps.dead_letters import grouping, search, tallies
from apps.dead_letters.models import DeadLetter, FailureGroup
from apps.tasks import holds
from apps.tasks.models import shown_id
from tests.conftest import MakeKey
from tests.dead_letters.conftest import MakeLetter
from tests.operators import post, refusal, walk
from tests.tasks.conftest import AsPerson

pytestmark = pytest.mark.django_db
GROUPS = "/ops/api/groups/"
SOON = (timezone.now() + timedelta(days=1)).isoformat()
# What each action needs beside the permission to look, and a body that it takes.
ACTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "assign": ("change_failuregroup", {"owner": ""}),
    "note": ("change_failuregroup", {"text": "look at the proxy"}),
    "snooze": ("change_failuregroup", {"more": 3, "reason": "known"}),
    "resolve": ("change_failuregroup", {"reason": "mended"}),
    "reopen": ("change_failuregroup", {}),
    "hold": ("hold_failuregroup", {"reason": "it costs too much"}),
    "release": ("hold_failuregroup", {}),
}


def at(group: str, action: str = "") -> str:
    return f"{GROUPS}{group}/{action + '/' if action else ''}"


def make_groups(count: int, **fields: Any) -> list[str]:
    """Groups that all were last seen at the same moment."""
    now = timezone.now()
    rows = [
        FailureGroup(
            fingerprint=f"{number:064x}", kind="k", queue="low", code="c", message="m", first_seen=now, last_seen=now,
            **fields,
        )
        for number in range(count)
    ]  # fmt: skip
    return [row.pk for row in FailureGroup.objects.bulk_create(rows)]


def test_groups_of_one_moment_are_paged_both_ways_each_once_without_a_count(admin_client: Client) -> None:
    made = make_groups(7)
    with CaptureQueriesContext(connection) as seen:
        pages = walk(admin_client, f"{GROUPS}?limit=3")
    assert [[row["fingerprint"] for row in page] for page in pages] == [made[:3:-1], made[3:0:-1], made[:1]]
    assert not any("COUNT(" in query["sql"].upper() for query in seen)


def test_a_page_of_groups_and_one_group_take_few_queries(admin_client: Client, django_user_model: Any) -> None:
    owner = django_user_model.objects.create_user("ada", is_staff=True)
    (one, *_) = make_groups(60, owner=owner)
    for url in (f"{GROUPS}?limit=50", at(one)):
        with CaptureQueriesContext(connection) as seen:
            assert admin_client.get(url).status_code == 200
        assert len(seen) <= 15


def test_a_group_says_what_it_is_whom_it_hurts_and_when_it_failed(
    admin_client: Client, make_letter: MakeLetter, make_key: MakeKey
) -> None:
    key, _ = make_key()
    letter = make_letter(project_id=key.project_id, api_key_id=key.pk)
    tallies.fold()
    grouping.hold(letter.group_id)
    (row,) = admin_client.get(GROUPS).json()["results"]
    assert (row["fingerprint"], row["state"], row["open_count"], row["held"]) == (
        letter.group_id,
        "for_review",
        1,
        True,
    )
    assert row["title"].startswith("validation_error 400")
    assert (len(row["sparkline"]), row["sparkline"][-1]) == (24, 1)
    found = admin_client.get(at(letter.group_id)).json()
    (hurt,) = found.pop("hurts")
    assert found == row
    assert (hurt["project_name"], hurt["api_key"], hurt["died"]) == (key.project.name, str(key.pk), 1)


def test_groups_are_filtered_and_searched_together(
    admin_client: Client, make_letter: MakeLetter, django_user_model: Any
) -> None:
    grouping.assign(
        (first := make_letter(upstream="acme/big")).group_id,
        owner=django_user_model.objects.create_user("ada", is_staff=True).username,
    )
    other = make_letter(queue="low", error=TimeoutError("too slow"))
    tallies.fold()
    hour_ago = (timezone.now() - timedelta(hours=1)).isoformat()
    for query, expected in (
        ({"state": "open"}, [first]),
        ({"queue": "low"}, [other]),
        ({"kind": first.kind}, [first]),
        ({"code": other.code}, [other]),
        ({"project": str(other.project_id)}, [other]),
        ({"since": hour_ago, "queue": "low"}, [other]),
        ({"until": hour_ago}, []),
        ({"q": "acme"}, [first]),
        ({"q": "owner:none age:<1h"}, [other]),
        ({"q": shown_id(first.task_id)}, [first]),
        ({"q": "acme", "state": "resolved"}, []),
        ({"q": f'kind:{first.kind} "not fit"', "queue": first.queue}, [first]),
    ):
        rows = admin_client.get(GROUPS, query).json()["results"]
        assert [row["fingerprint"] for row in rows] == [one.group_id for one in expected], query


def test_each_action_is_the_verb_of_the_admin(admin_client: Client, admin_user: Any, make_letter: MakeLetter) -> None:
    group = make_letter().group_id
    found = post(admin_client, at(group, "assign"), owner=admin_user.username).json()
    assert (found["owner"], found["state"]) == ("admin", "open")
    assert post(admin_client, at(group, "note"), text=" look ").json()["note"] == "look"
    found = post(admin_client, at(group, "snooze"), until=SOON, more=5).json()
    assert (found["state"], found["snooze_after"], bool(found["snoozed_until"])) == (
        "snoozed",
        6,
        True,
    )  # one has died already
    assert post(admin_client, at(group, "resolve"), reason="mended").json()["state"] == "resolved"
    assert post(admin_client, at(group, "reopen")).json()["state"] == "open"
    assert post(admin_client, at(group, "hold"), reason="costs").json()["held"] is True
    assert post(admin_client, at(group, "release")).json()["held"] is False
    assert DeadLetter.objects.get(group_id=group).state == "open"
    entries = AuditEntry.objects.filter(object_id=group).order_by("pk")
    assert [entry.action for entry in entries] == list(ACTIONS)
    assert {entry.actor for entry in entries} == {"admin"}


@pytest.mark.parametrize("may", [False, True])
@pytest.mark.parametrize("action", ACTIONS)
def test_each_action_needs_its_own_permission(
    as_person: AsPerson, make_letter: MakeLetter, action: str, may: bool
) -> None:
    group = make_letter().group_id
    if action == "release":
        holds.hold(group)
    permission, body = ACTIONS[action]
    others = {one for one, _ in ACTIONS.values()} - {permission}
    client = as_person("view_failuregroup", *others, *([permission] if may else []))
    assert client.get(at(group)).status_code == 200
    assert client.get(at(group, action)).status_code in {403, 405}
    response = post(client, at(group, action), **body)
    if may:
        assert response.status_code == 200, response.content
    else:
        assert permission in refusal(response, 403, "permission_denied")["message"]
    assert AuditEntry.objects.filter(action=action).exists() is may


def test_an_action_needs_the_permission_to_look_too(as_person: AsPerson, make_letter: MakeLetter) -> None:
    client, group = as_person("change_failuregroup", "hold_failuregroup"), make_letter().group_id
    for action, (_, body) in ACTIONS.items():
        refusal(post(client, at(group, action), **body), 403, "permission_denied")
    refusal(client.get(GROUPS), 403, "permission_denied")
    assert not AuditEntry.objects.exists()


def test_the_page_of_the_api_names_all_qualifiers_and_actions() -> None:
    page = (Path(__file__).parents[2] / "docs/operator-api.md").read_text()
    assert [name for name in search.QUALIFIERS if f"`{name}:" not in page] == []
    assert [name for name in ACTIONS if f"`{name}`" not in page] == []


def test_a_second_operator_is_told_of_the_first(admin_client: Client, make_letter: MakeLetter) -> None:
    group = make_letter().group_id
    for action in ("resolve", "hold"):
        assert post(admin_client, at(group, action)).status_code == 200
        assert "already" in refusal(post(admin_client, at(group, action)), 409, "conflict")["message"]
    assert post(admin_client, at(group, "release")).status_code == 200
    refusal(post(admin_client, at(group, "release")), 409, "conflict")


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    [
        ("none/", None, 404, "not_found", None),
        ("none/resolve/", {}, 404, "not_found", None),
        ("f/assign/", {"owner": "nobody"}, 400, "validation_error", "owner"),
        ("f/assign/", {}, 400, "validation_error", "owner"),
        ("f/note/", {"text": "x" * 2001}, 400, "validation_error", "text"),
        ("f/note/", {"text": "a\0b"}, 400, "validation_error", "text"),
        ("f/snooze/", {}, 400, "validation_error", "until"),
        ("f/snooze/", {"until": "2020-01-01T00:00Z"}, 400, "validation_error", "until"),
        ("f/snooze/", {"until": "soon"}, 400, "validation_error", "until"),
        ("f/snooze/", {"more": 0}, 400, "validation_error", "more"),
        ("f/snooze/", {"more": 10**30}, 400, "validation_error", "more"),
        ("f/resolve/", {"reason": "x" * 501}, 400, "validation_error", "reason"),
        ("f/resolve/", {"why": "x"}, 400, "validation_error", "why"),
        ("", {}, 405, "method_not_allowed", None),
        ("?state=nonsense", None, 400, "validation_error", "state"),
        ("?queue=nonsense", None, 400, "validation_error", "queue"),
        ("?kind=%00", None, 400, "validation_error", "kind"),
        ("?project=nonsense", None, 400, "validation_error", "project"),
        ("?since=nonsense", None, 400, "validation_error", "since"),
        ("?q=colour:red", None, 400, "validation_error", "q"),
        ("?q=state:redriven", None, 400, "validation_error", "q"),
        ("?q=%00", None, 400, "validation_error", "q"),
        ("?code=%00", None, 400, "validation_error", "code"),
        ("?cursor=cD1ub25zZW5zZQ==", None, 404, "not_found", None),
        ("?cursor=cD0yMDI1LTAxLTAxfGY=", None, 404, "not_found", None),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_one_body(
    admin_client: Client, path: str, body: Any, status: int, code: str, param: str | None
) -> None:
    FailureGroup.objects.create(fingerprint="f", kind="k", queue="low", code="c", message="m")
    url = f"{GROUPS}{path}"
    response = admin_client.get(url) if body is None else post(admin_client, url, **body)
    refusal(response, status, code, param)
    assert not AuditEntry.objects.exists()
