"""Dead letters over /ops/api/: the verbs and permissions of the admin; a payload is shown to who edits it alone."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pydantic import BaseModel

from apps.access.models import AuditEntry
from apps.dead_letters import tallies, triage
from apps.dead_letters.models import DeadLetter
from apps.dead_letters.queries import shown_id
from apps.tasks.models import Task, TaskPayload
from apps.tasks.models import shown_id as shown_task
from tests.dead_letters.conftest import MakeLetter, die
from tests.operators import post, refusal, walk
from tests.tasks.conftest import AsPerson, MakeKind
from tests.time import age

pytestmark = pytest.mark.django_db
LETTERS = "/ops/api/letters/"
NOBODY = "letter_0197f000000070008000000000000000"
WORDS = "the secret words of a client"
EDITED = json.dumps({"input": "better words"})
# What each action needs beside the permission to look, a body that it takes, and the entry that it leaves.
ACTIONS: dict[str, tuple[str, dict[str, Any], str]] = {
    "redrive": ("redrive_deadletter", {"reason": "mended"}, "redrive"),
    "discard": ("discard_deadletter", {"reason": "sent twice", "code": "duplicate"}, "discard"),
    "restore": ("discard_deadletter", {}, "restore"),
    "draft": ("edit_payload", {"reason": "ticket 7"}, "reveal"),
    "edit": ("edit_payload", {"reason": "a typo", "revision": 1, "payload": EDITED}, "edit"),
    "review": ("redrive_deadletter", {}, ""),
}


class Question(BaseModel, extra="forbid"):
    """Arguments that can be wrong."""

    input: str
    parts: list[int] = []


def at(letter: DeadLetter, action: str = "") -> str:
    return f"{LETTERS}{shown_id(letter.pk)}/{action + '/' if action else ''}"


@pytest.fixture
def letter(make_letter: MakeLetter, make_kind: MakeKind) -> DeadLetter:
    return make_letter(kind=make_kind(args=Question), args={"input": WORDS})


def test_letters_of_one_moment_are_paged_both_ways_each_once_without_a_count(
    admin_client: Client, make_letter: MakeLetter
) -> None:
    made = sorted(shown_id(make_letter().pk) for _ in range(7))
    DeadLetter.objects.update(created_at=timezone.now())
    with CaptureQueriesContext(connection) as seen:
        pages = walk(admin_client, f"{LETTERS}?limit=3")
    assert [row["id"] for page in pages for row in page] == made[::-1]
    assert not any("COUNT(" in query["sql"].upper() for query in seen)


def test_a_page_of_letters_and_one_letter_take_few_queries(admin_client: Client, make_letter: MakeLetter) -> None:
    letters = [make_letter() for _ in range(20)]
    for url in (LETTERS, at(letters[0])):
        with CaptureQueriesContext(connection) as seen:
            assert admin_client.get(url).status_code == 200
        assert len(seen) <= 15


def test_letters_are_filtered_and_searched_together(admin_client: Client, make_letter: MakeLetter) -> None:
    old, other = make_letter(upstream="acme/big"), make_letter(queue="low", error=TimeoutError("too slow"))
    age(old, days=2)
    triage.discard(other.pk, reason="r")
    yesterday = (timezone.now() - timedelta(days=1)).isoformat()
    for query, expected in (
        ({}, [other, old]),
        ({"state": "discarded"}, [other]),
        ({"kind": old.kind}, [old]),
        ({"queue": "low"}, [other]),
        ({"code": other.code}, [other]),
        ({"project": str(old.project_id)}, [old]),
        ({"group": old.group_id}, [old]),
        ({"since": yesterday}, [other]),
        ({"until": yesterday}, [old]),
        ({"q": "age:>1d acme"}, [old]),
        ({"q": shown_task(other.task_id), "state": "discarded"}, [other]),
        ({"q": f"group:{old.group_id[:12]}"}, [old]),
        ({"q": "acme", "queue": "low"}, []),
    ):
        rows = admin_client.get(LETTERS, query).json()["results"]
        assert [row["id"] for row in rows] == [shown_id(one.pk) for one in expected], query


def test_a_letter_comes_with_all_that_was_tried_and_without_the_words(admin_client: Client, letter: DeadLetter) -> None:
    triage.redrive(letter.pk)
    die(Task.objects.get(pk=letter.task_id), error=TimeoutError("too slow"))
    tallies.fold()
    response = admin_client.get(at(letter))
    found = response.json()
    assert (found["state"], found["outcome"], found["task"]) == ("redriven", "dead", shown_task(letter.task_id))
    assert (found["error"]["code"], found["error"]["message"]) == ("validation_error", "It does not fit.")
    assert [(one["cycle"], one["outcome"]) for one in found["timeline"]] == [(1, "failed"), (2, "failed")]
    (revision,) = found["revisions"]
    assert (revision["number"], revision["size"]) == (1, len(json.dumps({"input": WORDS})))
    assert found["title"].startswith("validation_error 400")
    assert WORDS not in response.content.decode()
    assert admin_client.get(f"{LETTERS}{letter.pk}/").json()["id"] == found["id"]
    page = admin_client.get(LETTERS).content.decode()
    assert WORDS not in page


def test_a_letter_whose_task_and_group_are_gone_is_still_shown(admin_client: Client, letter: DeadLetter) -> None:
    Task.objects.filter(pk=letter.task_id).delete()
    letter.group.delete()
    found = admin_client.get(at(letter)).json()
    assert (found["title"], found["error"], found["timeline"]) == ("validation_error", None, [])


def test_a_letter_is_redriven_discarded_and_restored(admin_client: Client, letter: DeadLetter) -> None:
    found = post(admin_client, at(letter, "discard"), reason="sent twice", code="duplicate").json()
    assert (found["state"], found["discard_code"], found["reason"], found["decided_by"]) == (
        "discarded", "duplicate", "sent twice", "admin",
    )  # fmt: skip
    assert post(admin_client, at(letter, "restore")).json()["state"] == "open"
    assert post(admin_client, at(letter, "redrive"), reason="mended").json()["state"] == "redriven"
    assert Task.objects.get(pk=letter.task_id).state == "pending"
    refusal(post(admin_client, at(letter, "redrive")), 409, "conflict")
    refusal(post(admin_client, at(letter, "discard"), reason="r"), 409, "conflict")
    refusal(post(admin_client, at(letter, "draft")), 409, "conflict")


def test_a_payload_is_drafted_edited_and_redriven_and_both_are_audited(
    admin_client: Client, letter: DeadLetter
) -> None:
    response = post(admin_client, at(letter, "draft"), reason="ticket 7")
    draft = response.json()
    assert response["Cache-Control"] == "no-store"
    assert json.loads(draft["payload"]) == {"input": WORDS}
    edited = json.dumps({"input": "better words", "parts": [1]})
    found = post(admin_client, at(letter, "edit"), payload=edited, revision=draft["revision"], reason="a typo").json()
    assert found["state"] == "redriven"
    body = TaskPayload.objects.filter(task_id=letter.task_id).order_by("-revision").values_list("body", flat=True)
    assert json.loads(body[0]) == json.loads(edited)
    assert [one["number"] for one in admin_client.get(at(letter)).json()["revisions"]] == [1, 2]
    entries = AuditEntry.objects.order_by("pk")
    assert [(entry.action, entry.reason) for entry in entries] == [
        ("reveal", "ticket 7"), ("edit", "a typo"), ("redrive", "a typo"),
    ]  # fmt: skip
    assert WORDS not in str(list(entries.values_list("before", "after")))


@pytest.mark.parametrize(
    ("payload", "param"),
    [
        ('{"input": 7}', "input"),
        ('{"input": "x", "parts": [1, "two"]}', "parts[1]"),
        ('{"input": "x", "extra": 1}', "extra"),
        ("[]", "payload"),
        ("nonsense", "payload"),
        ('{"input": NaN}', "payload"),
        ("[" * 5000, "payload"),
        ('{"input": "\\ud800"}', "payload"),
        (json.dumps({"input": WORDS}), "payload"),
        ("", "payload"),
    ],
)
def test_an_edit_that_does_not_fit_names_the_field_and_changes_nothing(
    admin_client: Client, letter: DeadLetter, payload: str, param: str
) -> None:
    response = post(admin_client, at(letter, "edit"), payload=payload, revision=1, reason="r")
    refusal(response, 400, "validation_error", param)
    assert TaskPayload.objects.filter(task_id=letter.task_id).count() == 1
    assert not AuditEntry.objects.exists()


def test_an_edit_of_an_old_revision_is_a_conflict(admin_client: Client, letter: DeadLetter) -> None:
    TaskPayload.objects.create(task_id=letter.task_id, revision=2, body=EDITED)
    response = post(admin_client, at(letter, "edit"), payload='{"input": "third"}', revision=1, reason="r")
    assert "edited by somebody else" in refusal(response, 409, "conflict")["message"]


def test_a_review_marks_an_open_letter_once(admin_client: Client, letter: DeadLetter) -> None:
    first = post(admin_client, at(letter, "review")).json()["reviewed_at"]
    assert first is not None
    assert post(admin_client, at(letter, "review")).json()["reviewed_at"] == first
    assert DeadLetter.objects.get(pk=letter.pk).state == "open"


@pytest.mark.parametrize("may", [False, True])
@pytest.mark.parametrize("action", ACTIONS)
def test_each_action_needs_its_own_permission(as_person: AsPerson, letter: DeadLetter, action: str, may: bool) -> None:
    if action == "restore":
        triage.discard(letter.pk, reason="r")
    permission, body, entry = ACTIONS[action]
    others = {one for one, _, _ in ACTIONS.values()} - {permission}
    client = as_person("view_deadletter", "change_deadletter", *others, *([permission] if may else []))
    assert client.get(at(letter)).status_code == 200
    assert client.get(at(letter, action)).status_code in {403, 405}
    before = AuditEntry.objects.count()
    response = post(client, at(letter, action), **body)
    if may:
        assert response.status_code == 200, response.content
        assert not entry or AuditEntry.objects.filter(action=entry).exists()
    else:
        assert permission in refusal(response, 403, "permission_denied")["message"]
        assert AuditEntry.objects.count() == before
    assert (WORDS in response.content.decode()) is (may and action == "draft")


def test_an_action_needs_the_permission_to_look_too(as_person: AsPerson, letter: DeadLetter) -> None:
    client = as_person("redrive_deadletter", "discard_deadletter", "edit_payload")
    for action, (_, body, _) in ACTIONS.items():
        refusal(post(client, at(letter, action), **body), 403, "permission_denied")
    refusal(client.get(LETTERS), 403, "permission_denied")
    assert not AuditEntry.objects.exists()


def test_a_post_of_a_session_needs_its_csrf_token(admin_user: Any, letter: DeadLetter) -> None:
    careful = Client(enforce_csrf_checks=True)
    careful.force_login(admin_user)
    assert "X-CSRFToken" in refusal(post(careful, at(letter, "redrive")), 403, "permission_denied")["message"]
    letter.refresh_from_db()
    assert letter.state == "open"


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    [
        ("letter_nonsense/", None, 404, "not_found", None),
        (f"{NOBODY}/", None, 404, "not_found", None),
        *((f"{NOBODY}/{action}/", body, 404, "not_found", None) for action, (_, body, _) in ACTIONS.items()),
        (f"{NOBODY}/discard/", {}, 400, "validation_error", "reason"),
        (f"{NOBODY}/discard/", {"reason": " "}, 400, "validation_error", "reason"),
        (f"{NOBODY}/discard/", {"reason": "r", "code": "because"}, 400, "validation_error", "code"),
        (f"{NOBODY}/redrive/", {"force": True}, 400, "validation_error", "force"),
        (f"{NOBODY}/review/", {"why": 1}, 400, "validation_error", "why"),
        (f"{NOBODY}/edit/", {"payload": "{}", "revision": 1}, 400, "validation_error", "reason"),
        (f"{NOBODY}/edit/", {"payload": "{}", "reason": "r"}, 400, "validation_error", "revision"),
        ("", {}, 405, "method_not_allowed", None),
        ("?state=for_review", None, 400, "validation_error", "state"),
        ("?q=state:regressed", None, 400, "validation_error", "q"),
        ("?q=project:nobodys", None, 400, "validation_error", "q"),
        ("?operation=nonsense", None, 400, "validation_error", "operation"),
        ("?until=nonsense", None, 400, "validation_error", "until"),
        ("?cursor=cD1ub25zZW5zZQ==", None, 404, "not_found", None),
        ("?stat=open", None, 400, "validation_error", "stat"),
        ("?limit=0", None, 400, "validation_error", "limit"),
        ("?limit=-5", None, 400, "validation_error", "limit"),
        ("?limit=many", None, 400, "validation_error", "limit"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_one_body(
    admin_client: Client, path: str, body: Any, status: int, code: str, param: str | None
) -> None:
    url = f"{LETTERS}{path}"
    response = admin_client.get(url) if body is None else post(admin_client, url, **body)
    refusal(response, status, code, param)


@pytest.mark.parametrize("raw", [b"{", b'{"reason": NaN}', b'{"reason": "\\ud800"}', b"[" * 100_000, b"\xff"])
def test_a_body_that_is_no_json_is_a_bad_request(admin_client: Client, letter: DeadLetter, raw: bytes) -> None:
    response = admin_client.post(at(letter, "redrive"), raw, content_type="application/json")
    refusal(response, 400, "validation_error")
