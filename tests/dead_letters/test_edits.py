"""Who edits a dead task's arguments redrives it with them: validated, as a revision, with no word in the audit."""

import itertools
import json
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel, Field

from apps.access.models import AuditEntry
from apps.core.errors import Conflict, InvalidRequest, PermissionDenied
from apps.dead_letters import triage
from apps.dead_letters.errors import LetterIsDecided, LetterNotFound, PayloadHasChanged
from apps.dead_letters.models import DeadLetter
from apps.tasks import kinds, payloads
from apps.tasks.executor import Executor
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import Task, TaskPayload, TaskResult
from tests.dead_letters.conftest import MakeLetter, die
from tests.dead_letters.test_triage import broken, now, person
from tests.races import together
from tests.tasks.conftest import MakeKind, ending, on_db, take, until

pytestmark = pytest.mark.django_db


class Line(BaseModel):
    """A part of a report."""

    text: str = Field(max_length=5000)


class Report(BaseModel):
    """Arguments with parts."""

    title: str = Field(min_length=1)
    lines: list[Line] = []
    urgent: bool | int = False


@pytest.fixture
def letter(make_letter: MakeLetter, make_kind: MakeKind) -> DeadLetter:
    """Of a report."""
    return make_letter(kind=make_kind(args=Report), args={"title": "secret words", "lines": [{"text": "one"}]})


def edit(letter: DeadLetter, text: Any, *, revision: int = 1, reason: str = "a typo", **by: Any) -> DeadLetter:
    text = text if isinstance(text, str) else json.dumps(text)
    return triage.edit_and_redrive(letter.pk, text=text, revision=revision, reason=reason, **by)


def bodies(letter: DeadLetter) -> Sequence[Any]:
    rows = TaskPayload.objects.filter(task_id=letter.task_id).order_by("revision")
    return [json.loads(row.body) for row in rows]


def test_the_edited_arguments_are_the_next_revision_and_the_earlier_ones_stay(letter: DeadLetter) -> None:
    edit(letter, {"title": "other words"})
    assert now(letter) == ("redriven", "pending", 2)
    assert bodies(letter) == [{"title": "secret words", "lines": [{"text": "one"}]}, {"title": "other words"}]
    assert [one.number for one in payloads.revisions(letter.task_id)] == [1, 2]
    die(Task.objects.get(pk=letter.task_id))
    second = DeadLetter.objects.get(task_id=letter.task_id, state="open")
    edit(second, {"title": "third words"}, revision=2)
    assert len(bodies(letter)) == 3
    assert broken() == []


@pytest.mark.django_db(transaction=True)
async def test_its_attempt_runs_with_what_was_edited(
    make_letter: MakeLetter, make_kind: MakeKind, worker: Executor
) -> None:
    letter = await on_db(_letter_of_before)(make_letter, make_kind)
    await on_db(edit)(letter, {"say": "sm\u00f6rg\0s \U0001f600", "n": [1, None]})
    task = await until(await on_db(Task.objects.get)(pk=letter.task_id), "succeeded")
    result = await on_db(TaskResult.objects.get)(task_id=task.pk)
    assert json.loads(result.body) == {"say": "sm\u00f6rg\0s \U0001f600", "n": [1, None]}


def _letter_of_before(make_letter: MakeLetter, make_kind: MakeKind) -> DeadLetter:
    """Of a kind whose worker has no part in its death."""
    letter = make_letter(kind=make_kind(), queue="quarantine")
    Task.objects.filter(pk=letter.task_id).update(priority="default")
    return letter


def test_the_audit_says_what_was_edited_and_holds_no_word_of_it(letter: DeadLetter, django_user_model: Any) -> None:
    actor = person(django_user_model, "edit_payload")
    edit(letter, {"title": "other hidden words", "urgent": True}, actor=actor, reason="the title was wrong")
    edited, redriven = AuditEntry.objects.order_by("id")
    assert (edited.action, edited.actor, edited.reason) == ("edit", actor.username, "the title was wrong")
    assert edited.before == {
        "revision": 1, "payload.title": "14 characters", "payload.lines": "17 characters",
    }  # fmt: skip
    assert edited.after == {"revision": 2, "payload.title": "20 characters", "payload.urgent": "4 characters"}
    assert redriven.action == "redrive"
    for entry in (edited, redriven):
        assert not {"secret", "hidden", "one"} & set(json.dumps([entry.before, entry.after]).split('"'))
        assert "words" not in json.dumps([entry.before, entry.after])


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ({}, "title"),
        ({"title": ""}, "title"),
        ({"title": "x", "lines": [{"text": "a"}, {"text": 5}]}, "lines[1].text"),
        ({"title": "x", "lines": [{}]}, "lines[0].text"),
        ({"title": "x", "lines": [{"text": "y" * 5001}]}, "lines[0].text"),
        ([], "payload"),
        ("null", "payload"),
        ("{", "payload"),
        ("", "payload"),
        ('{"title": "x"} {}', "payload"),
        ('{"title": NaN}', "payload"),
        ('{"title": "a\0b"}', "payload"),
        ('{"title": "\\ud800"}', "payload"),
        ('{"title": "\ud800"}', "payload"),
        ("[" * 100_000, "payload"),
        ('{"title": "' + "x" * 30_000_000 + '"}', "payload"),
        ({"title": "secret words", "lines": [{"text": "one"}]}, "payload"),
        ({"lines": [{"text": "one"}], "title": "secret words"}, "payload"),
    ],
    ids=str,
)
def test_what_is_no_payload_is_refused_by_the_name_of_the_field(letter: DeadLetter, text: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        edit(letter, text)
    assert refused.value.param == param
    assert now(letter) == ("open", "dead", 1)
    assert len(bodies(letter)) == 1
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize(("old", "new"), [(True, 1), (1, True), (False, 0)])
def test_values_that_python_takes_for_equal_are_a_change(
    make_letter: MakeLetter, make_kind: MakeKind, old: Any, new: Any
) -> None:
    letter = make_letter(kind=make_kind(args=Report), args={"title": "t", "urgent": old})
    edit(letter, {"title": "t", "urgent": new})
    assert bodies(letter)[1]["urgent"] is new
    assert "payload.urgent" in AuditEntry.objects.get(action="edit").after


@pytest.mark.parametrize("name", ["a\0b", "sm\u00f6rg\u00e5s", "x" * 500, ""])
def test_arguments_of_any_name_are_edited(make_letter: MakeLetter, name: str) -> None:
    letter = make_letter(args={"a": 1})
    edit(letter, {name: 2})
    assert bodies(letter) == [{"a": 1}, {name: 2}]
    assert now(letter)[0] == "redriven"


def test_arguments_that_hold_what_no_client_may_send_are_edited(make_letter: MakeLetter) -> None:
    letter = make_letter()
    TaskPayload.objects.filter(task_id=letter.task_id).update(body='{"\\ud800": "\\u0000\\udfff", "\\u0000": 1}')
    draft = triage.draft(letter.pk)
    assert json.loads(draft.text) == {"\ud800": "\0\udfff", "\0": 1}
    edit(letter, {"a": 1}, revision=draft.revision)
    assert now(letter)[0] == "redriven"


def test_of_two_editors_the_second_is_told_and_nothing_of_his_is_kept(letter: DeadLetter) -> None:
    TaskPayload.objects.create(task_id=letter.task_id, revision=2, body='{"title": "meanwhile"}')
    for revision in (1, 3, 0, -1):
        with pytest.raises(PayloadHasChanged):
            edit(letter, {"title": "mine"}, revision=revision)
    assert now(letter) == ("open", "dead", 1)
    assert len(bodies(letter)) == 2
    edit(letter, {"title": "mine"}, revision=triage.draft(letter.pk).revision)
    assert bodies(letter)[-1] == {"title": "mine"}


@pytest.mark.parametrize("reason", ["", " \n", "\0"])
def test_an_edit_needs_a_reason(letter: DeadLetter, reason: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        edit(letter, {"title": "x"}, reason=reason)
    assert refused.value.param == "reason"


def test_only_who_may_edit_payloads_does_and_needs_no_other_permission(
    letter: DeadLetter, django_user_model: Any
) -> None:
    wrong = person(django_user_model, "redrive_deadletter", "discard_deadletter", "reveal_payload", "view_deadletter")
    with pytest.raises(PermissionDenied):
        edit(letter, {"title": "x"}, actor=wrong)
    with pytest.raises(PermissionDenied):
        triage.draft(letter.pk, actor=wrong)
    assert not AuditEntry.objects.exists()
    right = person(django_user_model, "edit_payload")
    assert triage.draft(letter.pk, actor=right, reason="to mend").revision == 1
    [look] = AuditEntry.objects.all()
    assert (look.action, look.actor, look.object_id) == ("reveal", right.username, str(letter.task_id))
    edit(letter, {"title": "x"}, actor=right)
    assert now(letter)[0] == "redriven"
    with pytest.raises(PermissionDenied):
        triage.redrive(letter.pk, actor=right)


def test_only_an_open_letter_is_edited(letter: DeadLetter) -> None:
    with pytest.raises(LetterNotFound):
        triage.edit_and_redrive(uuid4(), text="{}", revision=1, reason="r")
    triage.discard(letter.pk, reason="r")
    for act in (lambda: edit(letter, {"title": "x"}), lambda: triage.draft(letter.pk)):
        with pytest.raises(LetterIsDecided):
            act()
    triage.restore(letter.pk)
    Task.objects.filter(pk=letter.task_id).update(state="cancelled")
    with pytest.raises(LetterIsDecided, match="not dead"):
        edit(letter, {"title": "x"})
    assert len(bodies(letter)) == 1


def test_arguments_of_an_older_version_are_edited_and_kept_in_the_present_one(
    make_letter: MakeLetter, make_kind: MakeKind
) -> None:
    kind = make_kind(args=Report, version=3, upcasters={
        1: lambda args: {"name": args["name"]}, 2: lambda args: {"title": args["name"]},
    })  # fmt: skip
    letter = make_letter(kind=kind, args={"name": "old"})
    Task.objects.filter(pk=letter.task_id).update(schema_version=1)
    assert json.loads(triage.draft(letter.pk).text) == {"title": "old"}
    with pytest.raises(InvalidRequest, match="Nothing was changed"):
        edit(letter, {"title": "old"})
    edit(letter, {"title": "new"})
    task = Task.objects.get(pk=letter.task_id)
    assert (task.schema_version, bodies(letter)) == (3, [{"name": "old"}, {"title": "new"}])
    finish([ending(take(task))])
    assert broken() == []


@pytest.mark.parametrize("body", ["not JSON", "[1]", '{"odd": 1}', "[" * 20_000])
def test_what_is_stored_and_cannot_be_read_is_replaced(make_letter: MakeLetter, make_kind: MakeKind, body: str) -> None:
    def upcast(args: Any) -> Any:
        return {"title": args["name"].strip(), **args.get("more").items()}

    kind = make_kind(args=Report, version=2, upcasters={1: upcast})
    letter = make_letter(kind=kind)
    Task.objects.filter(pk=letter.task_id).update(schema_version=1)
    TaskPayload.objects.filter(task_id=letter.task_id).update(body=body)
    assert body[:1000] in json.loads(triage.draft(letter.pk).text)["payload"]
    edit(letter, {"title": "mended"})
    assert bodies_text(letter) == [body, '{"title":"mended"}']


def bodies_text(letter: DeadLetter) -> list[str]:
    return [one.body for one in payloads.revisions(letter.task_id)]


def test_a_kind_that_no_code_knows_cannot_be_edited(letter: DeadLetter) -> None:
    kinds._kinds.pop(letter.kind)
    for act in (lambda: edit(letter, {"title": "x"}), lambda: triage.draft(letter.pk)):
        with pytest.raises(Conflict, match="No handler knows"):
            act()
    assert now(letter) == ("open", "dead", 1)


@pytest.mark.django_db(transaction=True)
def test_of_eight_who_edit_at_once_one_wins_and_one_revision_is_kept(letter: DeadLetter) -> None:
    found = together(8, lambda number: edit(letter, {"title": f"by {number}"}, reason=f"by {number}").reason)
    [won] = [one for one in found if isinstance(one, str)]
    assert {type(one) for one in found if not isinstance(one, str)} <= {LetterIsDecided, PayloadHasChanged}
    assert bodies(letter)[1:] == [{"title": won}]
    assert AuditEntry.objects.filter(action="edit").count() == 1
    assert broken() == []


@pytest.mark.django_db(transaction=True)
def test_of_eight_who_redrive_discard_edit_and_restore_at_once_one_decides_at_a_time(
    make_letter: MakeLetter, make_kind: MakeKind
) -> None:
    for letter in [make_letter(kind=make_kind(args=Report), args={"title": "a"}) for _ in range(4)]:

        def act(number: int, letter: DeadLetter = letter) -> str:
            verbs = (
                lambda: triage.redrive(letter.pk, reason="r"),
                lambda: triage.discard(letter.pk, reason="r"),
                lambda: edit(letter, {"title": f"by {number}"}),
                lambda: triage.restore(letter.pk),
            )
            return verbs[number % 4]().state

        found = [one for _ in range(3) for one in together(8, act)]
        assert {type(one) for one in found} <= {str, LetterIsDecided, PayloadHasChanged}
        entries = AuditEntry.objects.filter(object_id=str(letter.pk)).exclude(action="edit").order_by("at", "id")
        moves = [(entry.before["state"], entry.after["state"]) for entry in entries]
        assert all(before[1] == after[0] for before, after in itertools.pairwise(moves)), moves
        state, task_state, cycle = now(letter)
        assert moves[-1][1] == state
        assert (task_state, cycle) == (("pending", 2) if state == "redriven" else ("dead", 1))
        assert len(moves) == sum(isinstance(one, str) for one in found)
    assert broken() == []
