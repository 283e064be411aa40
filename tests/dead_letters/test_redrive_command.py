"""`manage.py redrive`: what it prints, what it does, and with which exit code it ends."""

import json
import signal
from collections import Counter
from io import StringIO
from typing import Any

import pytest
from django.conf import settings

from apps.access.models import AuditEntry
from apps.core.errors import InvalidRequest, RedriveError
from apps.dead_letters import tallies, triage
from apps.dead_letters.bulk import control, plan
from apps.dead_letters.management import naming
from apps.dead_letters.models import BulkOperation, BulkSlot, DeadLetter, FailureGroup
from apps.dead_letters.queries import shown_id
from tests.commands import ran
from tests.conftest import database_url
from tests.dead_letters.conftest import MakeLetter
from tests.dead_letters.test_triage import broken
from tests.dead_letters.ticking import end_holds, ender, tick, ticking
from tests.journeys.wire import eventually
from tests.tasks.conftest import MakeKind
from tests.worker import Child

pytestmark = pytest.mark.django_db(transaction=True)
Letters = list[DeadLetter]
YES = ("--yes",)


class Terminal(StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


def redrive(*args: str, code: int = 0, typed: str | None = None) -> str:
    """Its standard output and error, once it has ended with the code."""
    return ran("redrive", *args, code=code, stdin=StringIO() if typed is None else Terminal(typed))


@pytest.fixture
def letters(make_letter: MakeLetter, make_kind: MakeKind) -> Letters:
    """Twenty-five of one group, counted."""
    kind = make_kind()
    made = [make_letter(kind=kind) for _ in range(25)]
    tallies.fold()
    return made


def states_of(letters: Letters) -> Counter[str]:
    return Counter(DeadLetter.objects.filter(pk__in=[one.pk for one in letters]).values_list("state", flat=True))


def test_a_group_is_named_by_its_first_characters_if_no_other_begins_so(db: None) -> None:
    for end in "ab":
        FailureGroup.objects.create(fingerprint=f"abcdef{end * 58}", kind="k", queue="low", code="c", message="m")
    assert naming.group("ABCDEFa").pk.endswith("a")
    for text in ("abcde", "abcdef", "abcdefc", "abcde%", "abcdef\udcff"):
        with pytest.raises(RedriveError):
            naming.group(text)


def test_single_letters_are_redriven_and_what_cannot_be_is_named(make_letter: MakeLetter) -> None:
    first, second = make_letter(), make_letter()
    triage.discard(second.pk, reason="r")
    out = redrive("letter", shown_id(first.pk), shown_id(second.pk), "--reason", "mended", code=1)
    assert f"{shown_id(first.pk)}: redriven" in out
    assert f"{shown_id(second.pk)}: This dead letter is discarded already." in out
    assert "1 of 2 could not be redriven" in out
    first.refresh_from_db()
    assert (first.state, first.decided_by, first.reason) == ("redriven", "command line", "mended")


def test_groups_are_listed_for_people_and_for_scripts(letters: Letters, make_letter: MakeLetter) -> None:
    other = make_letter(error=InvalidRequest("another \x1b[2Jthing"))
    tallies.fold()
    out = redrive("groups")
    head, *lines = out.splitlines()
    assert head.split()[:4] == ["GROUP", "STATE", "OPEN", "TOTAL"]
    assert {line.split()[0] for line in lines} == {letters[0].group_id[:12], other.group_id[:12]}
    assert "\x1b" not in out
    [row] = [
        json.loads(line) for line in redrive("groups", "-q", f"group:{letters[0].group_id}", "--json").splitlines()
    ]
    assert (row["fingerprint"], row["open"], row["total"], row["state"]) == (letters[0].group_id, 25, 25, "for_review")
    assert (sum(row["last_24_h"]), row["held"], row["owner"]) == (25, False, None)
    assert "no such failure group" in redrive("groups", "-q", "code:none")


def test_a_group_is_redriven_with_a_canary_and_followed_to_its_end(letters: Letters) -> None:
    with ticking(end_holds, ender(letters)):
        out = redrive(
            "bulk", "--group", letters[0].group_id[:6], "--reason", "mended", "--rate", "1000", *YES, "--follow"
        )
    assert "25 letters to be redriven" in out
    assert "takes less than a second at 1000 a second" in out
    assert "costs about $0.0000" in out
    assert "done: 25 of 25 redriven, 25 succeeded, 0 failed again, 0 in flight" in out
    operation = BulkOperation.objects.get()
    assert (operation.state, operation.canary, operation.reason) == ("done", 3, "mended")
    assert set(DeadLetter.objects.values_list("decided_by", "reason")) == {("command line", "mended")}
    assert broken() == []


def test_a_canary_that_fails_ends_it_with_one_and_it_goes_on_from_there(letters: Letters) -> None:
    with ticking(end_holds, ender(letters, dead=1)):
        out = redrive("bulk", "-q", "state:open", "--rate", "1000", *YES, "--follow", code=1)
    assert "of the first 3 did not succeed" in out
    assert "failed again: " in out
    [operation] = BulkOperation.objects.all()
    assert f"manage.py redrive resume {operation.pk.hex}" in out
    assert "running: " in redrive("resume", operation.pk.hex)
    with ticking(ender(letters)):
        assert "done: " in redrive("show", operation.pk.hex, "--follow", code=1)  # some have failed again


def test_without_follow_it_goes_on_by_itself(letters: Letters) -> None:
    with ticking(end_holds):
        out = redrive("bulk", "-q", "state:open", *YES, code=3)
    [operation] = BulkOperation.objects.all()
    assert f"manage.py redrive show {operation.pk.hex} --follow" in out
    assert operation.state in ("canary", "running")


def test_a_dry_run_tells_what_would_be_done_and_does_nothing(letters: Letters) -> None:
    triage.discard(letters[0].pk, reason="r")
    with ticking():
        out = redrive("bulk", "-q", "state:open", "--dry-run")
    assert "24 letters" in out
    assert f"by kind: {letters[0].kind} 24" in out
    assert BulkOperation.objects.get().state == "cancelled"
    assert not BulkSlot.objects.exists()
    assert states_of(letters) == {"open": 24, "discarded": 1}


def test_who_is_asked_may_say_no(letters: Letters) -> None:
    for typed in ("", "no\n", "24\n"):
        with ticking():
            assert "Taken back" in redrive("bulk", "-q", "state:open", typed=typed, code=1)
    assert set(BulkOperation.objects.values_list("state", flat=True)) == {"cancelled"}
    with ticking(end_holds):
        assert "Start? [y/N]" in redrive("bulk", "-q", "state:open", typed="y\n", code=3)


def test_a_large_one_starts_only_with_its_number(make_letter: MakeLetter, make_kind: MakeKind) -> None:
    kind = make_kind()
    letters = [make_letter(kind=kind) for _ in range(101)]
    discard = ("bulk", "-q", "state:open", "--discard", "--code", "test", "--reason", "a test")
    with ticking(end_holds):
        assert "Type the number of letters: 101." in redrive(*discard, *YES, code=1)
        assert "It is 101 letters now, not 100" in redrive(*discard, "--confirm", "100", code=1)
        assert "Type 101 to start" in redrive(*discard, typed="y\n", code=1)
        assert states_of(letters) == {"open": 101}
        assert "done: 101 of 101 discarded" in redrive(*discard, "--follow", typed="101\n")
    operation = BulkOperation.objects.get(state="done")
    with ticking(end_holds):
        out = redrive("bulk", "--restore-from", operation.pk.hex, "--yes", "101", "--follow")
    assert "done: 101 of 101 restored" in out
    assert states_of(letters) == {"open": 101}


def interrupted(*args: str, once: str) -> tuple[str, int | None]:
    """What the command prints, in a process of its own, where Ctrl-C comes as soon as it has said `once`; its code."""
    environment = {"REDRIVE_DATABASE_URL": database_url(), "REDRIVE_REDIS_URL": settings.REDRIVE.redis_url}
    child = Child({**environment, "PYTHONUNBUFFERED": "1"}, "redrive", *args)
    assert eventually(lambda: once in child.log.read_text(), within=30, every=0.05), child.log.read_text()
    child.stop(signal.SIGINT)
    return child.log.read_text(), child.process.returncode


def test_ctrl_c_within_the_hold_takes_it_back(letters: Letters) -> None:
    with ticking():
        out, code = interrupted("bulk", "-q", "state:open", *YES, once="Ctrl-C takes it back")
    assert "Taken back" in out
    assert code == 1
    assert states_of(letters) == {"open": 25}
    assert BulkOperation.objects.get().state == "cancelled"
    assert {"undo", "cancel"} <= set(AuditEntry.objects.values_list("action", flat=True))


def test_ctrl_c_after_the_hold_only_stops_looking(letters: Letters) -> None:
    with ticking(end_holds):
        out, code = interrupted("bulk", "-q", "state:open", *YES, "--follow", once="canary")
    assert "It goes on by itself" in out
    assert code == 3
    assert BulkOperation.objects.get().state == "canary"


def test_without_a_clock_it_says_so_and_leaves_nothing_behind(letters: Letters) -> None:
    out = redrive("bulk", "-q", "state:open", *YES, "--wait", "0.5", code=1)
    assert "No clock ticks" in out
    assert "It was not counted within 0.5 s" in out
    assert BulkOperation.objects.get().state == "cancelled"
    assert not BulkSlot.objects.exists()


def test_nothing_to_do_is_done(db: None) -> None:
    with ticking():
        assert "0 letters" in redrive("bulk", "-q", "state:open", *YES)


def test_what_another_operation_works_on_is_refused_or_skipped(letters: Letters) -> None:
    plan.create("redrive", groups=[letters[0].group_id])
    assert "Another bulk operation works on" in redrive("bulk", "--group", letters[0].group_id, *YES, code=1)
    with ticking():
        assert "skipped: 25, another operation works on its group" in redrive("bulk", "-q", "state:open", *YES, code=1)


def test_operations_are_listed_shown_and_steered(letters: Letters) -> None:
    operation = plan.create("redrive", groups=[letters[0].group_id])
    tick()
    control.start(operation.pk, rate=1)
    end_holds()
    tick()
    assert operation.pk.hex in redrive("list", "--active")
    [row] = [json.loads(line) for line in redrive("list", "--json").splitlines()]
    assert (row["id"], row["state"], row["total"]) == (operation.pk.hex, "canary", 25)
    assert "paused: " in redrive("pause", operation.pk.hex, "--reason", "lunch")
    assert "canary: " in redrive("resume", str(operation.pk))
    assert "50 a second, at most 7 in flight" in redrive(
        "pace", operation.pk.hex, "--rate", "50", "--max-in-flight", "7"
    )
    assert json.loads(redrive("show", operation.pk.hex, "--json"))["rate"] == 50
    assert "The operation is canary" in redrive("undo", operation.pk.hex, code=1)
    assert "cancelled: " in redrive("cancel", operation.pk.hex)
    assert "cancelled: " in redrive("show", operation.pk.hex)
    assert "no such bulk operation" in redrive("list", "--active")


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["bulk", "-q", "state:open"], 2, "nobody can be asked here"),
        (["bulk", *YES], 1, "Say which letters"),
        (["bulk", "-q", "colour:red", *YES], 1, "There is no colour: here"),
        (["bulk", "-q", "state:open", "--discard", *YES], 2, "needs --reason and --code"),
        (["bulk", "-q", "state:open", "--discard", "--restore-from", "x", *YES], 2, "not both"),
        (["bulk", "--restore-from", "x", "--canary", "3", *YES], 2, "are of a redrive"),
        (["bulk", "--restore-from", "x", *YES], 1, "not the id of a bulk operation"),
        (["bulk", "-q", "state:open", "--rate", "0", *YES], 2, "--rate: from 0.01 to 1,000"),
        (["bulk", "-q", "state:open", "--rate", "nan", *YES], 2, "--rate: from 0.01 to 1,000"),
        (["bulk", "--group", "abc", *YES], 1, "at least the first 6"),
        (["bulk", "--group", "abcdef", *YES], 1, "There is no failure group"),
        (["letter", "letter_x"], 1, "1 of 1 could not be redriven"),
        (["show", "0197f000000070008000000000000000"], 1, "no such bulk operation"),
        (["pace", "0197f000000070008000000000000000"], 2, "give --rate"),
        (["groups", "--limit", "0"], 2, "from 1 to"),
    ],
)
def test_what_is_refused_is_one_clear_line(db: None, args: list[str], code: int, said: str) -> None:
    assert said in redrive(*args, code=code)
    assert not BulkOperation.objects.exists()


def test_a_pace_out_of_bounds_starts_nothing(letters: Letters) -> None:
    with ticking():
        for option, value in (("--max-in-flight", "0"), ("--stop-percent", "0"), ("--canary", "26")):
            assert f"{option}: From " in redrive("bulk", "-q", "state:open", *YES, option, value, code=1)
    assert set(BulkOperation.objects.values_list("state", flat=True)) == {"cancelled"}


def silent(parser: Any) -> list[str]:
    """The arguments of a parser and its verbs that say nothing of themselves."""
    found = [str(action.dest) for action in parser._actions if not action.help]
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for verb in action.choices.values():
                found += [f"{verb.prog}: {name}" for name in silent(verb)]
    return found


@pytest.mark.parametrize("name", ["redrive", "dead_letters", "tasks"])
def test_every_argument_of_every_verb_says_what_it_does(name: str) -> None:
    from django.core.management import get_commands, load_command_class

    parser = load_command_class(get_commands()[name], name).create_parser("manage.py", name)
    assert silent(parser) == []
    assert "exit codes:" in (parser.epilog or "")
