"""`manage.py dead_letters`: what it prints, what it does, and with which exit code it ends."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from apps.access.models import AuditEntry
from apps.core.errors import InvalidRequest
from apps.dead_letters import tallies, triage
from apps.dead_letters.models import DeadLetter, FailureGroup
from apps.dead_letters.queries import shown_id
from apps.tasks.models import RetryHold, Task, TaskPayload
from tests.commands import ran
from tests.dead_letters.conftest import MakeLetter
from tests.dead_letters.test_triage import broken, now
from tests.races import together
from tests.time import age

pytestmark = pytest.mark.django_db


def dead_letters(*args: str, code: int = 0, typed: str = "") -> str:
    """Its standard output and error, once it has ended with the code."""
    return ran("dead_letters", *args, code=code, stdin=StringIO(typed))


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def name(letter: DeadLetter) -> str:
    return shown_id(letter.pk)


def test_a_list_is_narrowed_by_a_query(make_letter: MakeLetter) -> None:
    first, second = make_letter(), make_letter(error=InvalidRequest("\x1b[2Janother"), queue="low")
    head, *lines = dead_letters("list").splitlines()
    assert head.split()[:3] == ["ID", "STATE", "KIND"]
    assert [line.split()[0] for line in lines] == [name(second), name(first)]
    assert "\x1b" not in "".join(lines)
    assert [row["id"] for row in rows(dead_letters("list", "-q", "queue:low", "--json"))] == [name(second)]
    assert "no such dead letter" in dead_letters("list", "-q", "code:none")


def test_a_letter_is_shown_with_its_attempts_and_its_texts_only_on_demand(make_letter: MakeLetter) -> None:
    letter = make_letter(
        args={"input": "secret words"}, upstream="openai/gpt-4o-mini", error=InvalidRequest("too long")
    )
    tallies.fold()
    out = dead_letters("show", name(letter))
    for words in ("too long", "openai/gpt-4o-mini", "OUTCOME", "1 open of 1"):
        assert words in out
    assert "secret words" not in out
    assert not AuditEntry.objects.exists()
    assert "secret words" in dead_letters("show", name(letter), "--reveal", "--reason", "ticket 7")
    [row] = rows(dead_letters("show", name(letter), "--reveal", "--json"))
    assert (row["state"], row["timeline"][0]["outcome"], row["failure_group"]["open"]) == ("open", "failed", 1)
    assert json.loads(row["texts"]["payload"]) == {"input": "secret words"}
    assert list(AuditEntry.objects.values_list("action", flat=True)) == ["reveal", "reveal"]


def test_a_bug_is_shown_with_its_traceback(make_letter: MakeLetter) -> None:
    letter = make_letter(error=KeyError("total_tokens"))
    assert "KeyError: 'total_tokens'" in dead_letters("show", name(letter))


def test_a_review_takes_the_oldest_and_says_whether_more_are_left(make_letter: MakeLetter) -> None:
    letters = [make_letter(error=InvalidRequest("it is \x1b[2J wrong")) for _ in range(5)]
    age(letters[4], hours=1)
    triage.discard(letters[3].pk, reason="r")
    out = dead_letters("review", "--batch", "2", code=3)
    assert [row["id"] for row in rows(out)] == [name(letters[4]), name(letters[0])]
    assert rows(out)[0].keys() == {
        "id", "task", "kind", "queue", "code", "message", "upstream", "attempts", "created_at", "group", "state",
    }  # fmt: skip
    assert "\x1b" not in out
    assert DeadLetter.objects.filter(reviewed_at__isnull=False).count() == 2
    assert [row["id"] for row in rows(dead_letters("review"))] == [name(letters[1]), name(letters[2])]
    assert dead_letters("review") == ""
    assert broken() == []


@pytest.mark.django_db(transaction=True)
def test_two_reviewers_get_different_letters(make_letter: MakeLetter) -> None:
    letters = [make_letter() for _ in range(40)]

    def take(_: int) -> list[Any]:
        with transaction.atomic():
            return [letter.pk for letter in triage.take_for_review(5)]

    found = together(8, take)
    taken = [one for batch in found if isinstance(batch, list) for one in batch]
    assert sorted(taken) == sorted(letter.pk for letter in letters)
    assert not triage.waits_for_review()


@pytest.mark.django_db(transaction=True)
def test_a_review_that_cannot_be_written_out_marks_nothing(make_letter: MakeLetter) -> None:
    class Gone(StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    make_letter()
    with pytest.raises(BrokenPipeError):
        call_command("dead_letters", "review", stdout=Gone())
    assert connection.in_atomic_block is False
    assert triage.waits_for_review()


def test_letters_are_discarded_with_a_code_and_restored(make_letter: MakeLetter) -> None:
    first, second = make_letter(), make_letter()
    out = dead_letters("discard", name(first), name(second), "--code", "duplicate", "--reason", "sent twice")
    assert out.splitlines() == [f"{name(first)}: discarded", f"{name(second)}: discarded"]
    first.refresh_from_db()
    assert (first.state, first.discard_code, first.reason) == ("discarded", "duplicate", "sent twice")
    assert dead_letters("restore", name(first)) == f"{name(first)}: open\n"
    out = dead_letters("restore", name(first), name(second), code=1)
    assert "1 of 2 could not be changed" in out
    assert "is open, not discarded" in out
    assert broken() == []


def test_a_payload_is_written_out_edited_and_redriven(make_letter: MakeLetter, tmp_path: Path) -> None:
    letter = make_letter(args={"input": "too long"})
    out = dead_letters("edit", name(letter), "--print")
    assert '"input": "too long"' in out
    assert "--revision 1" in out
    draft = tmp_path / "draft.json"
    draft.write_text('{"input": "short"}')
    edit = ("edit", name(letter), "--file", str(draft))
    assert "Say why it is edited" in dead_letters(*edit, code=1)
    assert "was edited by somebody else" in dead_letters(*edit, "--reason", "r", "--revision", "7", code=1)
    assert "payload: This is not JSON" in dead_letters(
        "edit", name(letter), "--file", "-", "--reason", "r", code=1, typed="{"
    )
    assert dead_letters(*edit, "--reason", "shorter") == f"{name(letter)}: edited and redriven\n"
    assert now(letter) == ("redriven", "pending", 2)
    bodies = TaskPayload.objects.filter(task_id=letter.task_id).order_by("revision").values_list("body", flat=True)
    assert [json.loads(body)["input"] for body in bodies] == ["too long", "short"]
    assert broken() == []


def test_groups_are_worked_on(make_letter: MakeLetter, django_user_model: Any) -> None:
    django_user_model.objects.create_user("anna", is_staff=True)
    letter, other = make_letter(), make_letter()
    group = letter.group_id[:8]
    assert dead_letters("assign", group, "--owner", "anna") == f"{group}: open, assigned to anna\n"
    assert "until it has failed 5 times more" in dead_letters("snooze", group, "--more", "5")
    assert "snoozed until " in dead_letters("snooze", other.group_id, "--hours", "4", "--reason", "lunch")
    assert "resolved" in dead_letters("resolve", group)
    assert "open" in dead_letters("reopen", group)
    assert "noted" in dead_letters("note", group, "--text", "ask the provider")
    row = FailureGroup.objects.get(pk=letter.group_id)
    assert (row.state, row.note, row.owner and row.owner.get_username()) == ("open", "ask the provider", "anna")
    assert "held" in dead_letters("hold", group, other.group_id)
    assert RetryHold.objects.count() == 2
    assert "Its retries are held already" in dead_letters("hold", group, code=1)
    assert "released" in dead_letters("release", group)
    assert "assigned to nobody" in dead_letters("assign", group, "--owner", "")
    assert "without a note" in dead_letters("note", group, "--text", "")
    assert Task.objects.get(pk=letter.task_id).state == "dead"


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["show", "nonsense"], 1, "no such dead letter"),
        (["show", "letter_0197f000000070008000000000000000"], 1, "no such dead letter"),
        (["list", "-q", "colour:red"], 1, "There is no colour: here"),
        (["list", "--limit", "0"], 2, "from 1 to"),
        (["review", "--batch", "0"], 2, "from 1 to"),
        (["discard", "letter_x", "--code", "test", "--reason", "r"], 1, "no such dead letter"),
        (["edit", "letter_0197f000000070008000000000000000", "--print"], 1, "no such dead letter"),
        (["resolve", "abc"], 1, "at least the first 6"),
        (["resolve", "abcdef"], 1, "There is no failure group"),
    ],
)
def test_what_is_refused_is_one_clear_line(args: list[str], code: int, said: str) -> None:
    assert said in dead_letters(*args, code=code)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([], 2, "one of them"),
        (["--print", "--file", "x"], 2, "one of them"),
        (["--file", "/no/such/file", "--reason", "r"], 1, "It cannot be read"),
    ],
)
def test_an_edit_says_what_it_lacks(make_letter: MakeLetter, options: list[str], code: int, said: str) -> None:
    assert said in dead_letters("edit", name(make_letter()), *options, code=code)


@pytest.mark.parametrize("options", [["--hours", "1e300"], ["--hours", "nan"], ["--hours", "-1"], [], ["--more", "0"]])
def test_a_snooze_needs_a_sensible_end(make_letter: MakeLetter, options: list[str]) -> None:
    group = make_letter().group_id
    dead_letters("snooze", group, *options, code=1)
    assert FailureGroup.objects.get(pk=group).state == "for_review"


@pytest.mark.parametrize("args", [["discard", "x", "--reason", "r"], ["assign", "abcdef"], ["nonsense"], []])
def test_wrong_usage_is_told_from_a_refusal(args: list[str]) -> None:
    with pytest.raises(CommandError, match="(invalid choice|required)"):
        call_command("dead_letters", *args)
