"""A letter knows how the task that was redriven from it has ended, in whichever way it did; so do letters of before."""

from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from apps.core.errors import InvalidRequest
from apps.dead_letters import tallies, triage
from apps.dead_letters.models import DeadLetter, FailureGroup, GroupHour, GroupKey, GroupTally
from apps.tasks.lifecycle.cancel import cancel
from apps.tasks.lifecycle.ending import failure_of
from apps.tasks.lifecycle.expire import expire
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import Task
from tests.dead_letters.conftest import MakeLetter, die
from tests.dead_letters.operations import Letters, end
from tests.dead_letters.test_triage import broken
from tests.tasks.conftest import News, ending, news, take

__all__ = ["news"]
pytestmark = pytest.mark.django_db
Way = Callable[[Task], Any]


def expired(task: Task) -> None:
    Task.objects.filter(pk=task.pk).update(deadline=timezone.now() - timedelta(seconds=1))
    assert expire() == 1


def cancelled_while_it_runs(task: Task) -> None:
    claimed = take(task)
    assert cancel(task.pk).state == "running"
    failure = failure_of(InvalidRequest("x"), kind=task.kind, upstream="")
    assert finish([ending(claimed, "retrying", "failed", charged=True, failure=failure)]) == ["cancelled"]


def succeeded_at_last(task: Task) -> None:
    failure = failure_of(InvalidRequest("x"), kind=task.kind, upstream="")
    assert finish([ending(take(task), "retrying", "failed", charged=True, failure=failure)]) == ["retrying"]
    assert DeadLetter.objects.get(task_id=task.pk).outcome == ""
    finish([ending(take(task))])


WAYS: dict[str, tuple[Way, str]] = {
    "succeeded": (lambda task: finish([ending(take(task))]), "succeeded"),
    "succeeded after a retry": (succeeded_at_last, "succeeded"),
    "dead again": (die, "dead"),
    "expired": (expired, "dead"),
    "cancelled while it waits": (lambda task: cancel(task.pk), "cancelled"),
    "cancelled while it runs": (cancelled_while_it_runs, "cancelled"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_redriven_task_that_ends_tells_its_letter_how(make_letter: MakeLetter, news: News, way: str) -> None:
    letter, other = make_letter(), make_letter()
    run, outcome = WAYS[way]
    for one in (letter, other):
        triage.redrive(one.pk)
    news["finished"].clear()
    run(Task.objects.get(pk=letter.task_id))
    assert [(one.task_id, one.cycle, one.state) for one in news["finished"]] == [(letter.task_id, 2, outcome)]
    letter.refresh_from_db()
    other.refresh_from_db()
    assert (letter.outcome, other.outcome) == (outcome, "")
    if outcome == "dead":
        second = DeadLetter.objects.get(task_id=letter.task_id, cycle=2)
        triage.redrive(second.pk)
        finish([ending(take(Task.objects.get(pk=letter.task_id)))])
        letter.refresh_from_db()
        second.refresh_from_db()
        assert (letter.outcome, second.outcome) == ("dead", "succeeded")
    assert broken() == []


def test_a_task_that_was_never_redriven_has_no_letter_to_tell(make_letter: MakeLetter, news: News) -> None:
    letter = make_letter()
    assert {one.cycle for one in news["finished"]} == {1}
    letter.refresh_from_db()
    assert letter.outcome == ""


def counts() -> list[Any]:
    names = ("died", "open", "redriven", "succeeded", "failed", "cancelled", "discarded", "key")
    fields = [f"{name}_count" for name in names]
    rows = FailureGroup.objects.order_by("pk").values_list("pk", "state", "last_seen", *fields)
    keys = GroupKey.objects.order_by("group_id", "api_key_id").values_list("group_id", "api_key_id", "died")
    hours = GroupHour.objects.order_by("group_id", "hour").values_list("group_id", "hour", "died")
    return [list(rows), list(keys), list(hours)]


def test_letters_of_before_are_counted_as_if_they_had_been_counted_all_along(
    letters: Letters, make_letter: MakeLetter
) -> None:
    make_letter()
    for letter in letters[:7]:
        triage.redrive(letter.pk)
    end(letters[:7], dead=3)
    triage.redrive(letters[7].pk)
    cancel(letters[7].task_id)
    again = DeadLetter.objects.filter(cycle=2).order_by("pk")
    triage.redrive(again[0].pk)  # and runs
    triage.redrive(again[1].pk)
    finish([ending(take(Task.objects.get(pk=again[1].task_id)))])
    for letter in letters[8:11]:
        triage.discard(letter.pk, reason="r")
    tallies.fold()
    expected = counts()
    outcomes = set(DeadLetter.objects.values_list("pk", "outcome"))

    migrate_from_before()
    tallies.fold()
    assert set(DeadLetter.objects.values_list("pk", "outcome")) == outcomes
    assert counts() == expected
    assert broken() == []


def migrate_from_before() -> None:
    """Make letters and groups what the version before has left, and run what the migration runs before its triggers."""
    zero = {f"{name}_count": 0 for name in ("died", "open", "redriven", "succeeded", "failed", "cancelled")}
    for rows in (GroupTally, GroupKey, GroupHour):
        rows.objects.all().delete()
    FailureGroup.objects.update(discarded_count=0, key_count=0, last_seen=timezone.now(), **zero)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE dead_letters_deadletter DISABLE TRIGGER USER")
        DeadLetter.objects.update(outcome="")
        cursor.execute(import_module("apps.dead_letters.migrations.0004_tallies").EARLIER)
        cursor.execute("ALTER TABLE dead_letters_deadletter ENABLE TRIGGER USER")
