"""A task is dead exactly if its letter was written with it."""

import json
from typing import Any

import pytest
from django.db import IntegrityError, connection
from django.test.utils import CaptureQueriesContext

from apps.core.errors import InvalidRequest, Timeout
from apps.dead_letters.models import DeadLetter, FailureGroup
from apps.tasks.fingerprint import normalise
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import Task, TaskAttempt
from apps.tasks.signals import tasks_died
from tests.dead_letters.conftest import MakeLetter, deaths, die
from tests.races import together
from tests.tasks.conftest import MakeKind, MakeTask

pytestmark = pytest.mark.django_db
NASTY = ["a\0b", "half \ud83d of a smile", "\udfff\0\ud800"]


def test_a_letter_says_whose_task_died_of_what(make_letter: MakeLetter) -> None:
    letter = make_letter(error=Timeout("Too slow."), upstream="p/m", queue="low")
    task = Task.objects.get(pk=letter.task_id)
    assert (letter.state, letter.cycle, letter.code, letter.attempts) == ("open", 1, "timeout", 1)
    assert (letter.kind, letter.queue, letter.project_id) == (task.kind, "low", task.project_id)
    group = letter.group
    assert (group.kind, group.queue, group.upstream, group.code) == (task.kind, "low", "p/m", "timeout")
    assert group.pk == TaskAttempt.objects.get(task_id=task.pk).fingerprint


def test_a_batch_is_written_by_as_many_statements_as_one_letter(make_task: MakeTask, make_kind: MakeKind) -> None:
    kind = make_kind()
    counts = []
    for size in (1, 60):
        tasks = [make_task(kind) for _ in range(size)]
        endings = deaths(tasks, [InvalidRequest("odd" if number % 2 else "even") for number in range(size)])
        with CaptureQueriesContext(connection) as seen:
            finish(endings)
        counts.append(sum("dead_letters_" in query["sql"] for query in seen))
    assert counts == [3, 3]
    assert DeadLetter.objects.count() == 61
    assert {group.message: group.letters.count() for group in FailureGroup.objects.all()} == {"even": 31, "odd": 30}  # type: ignore[attr-defined]


def test_a_group_stays_as_its_first_letter_made_it(make_task: MakeTask, make_kind: MakeKind) -> None:
    kind = make_kind()
    die(make_task(kind), error=InvalidRequest("No model of the id 11111111."))
    before = FailureGroup.objects.get()
    die(make_task(kind), error=InvalidRequest("No model of the id 22222222."))
    after = FailureGroup.objects.get()
    assert (after.message, after.first_seen) == (before.message, before.first_seen)
    assert after.letters.count() == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("words", NASTY)
def test_words_that_postgres_refuses_stand_alike_in_attempt_and_group(make_letter: MakeLetter, words: str) -> None:
    letter = make_letter(error=InvalidRequest(words))
    attempt = TaskAttempt.objects.get(task_id=letter.task_id)
    assert letter.group.message == normalise(attempt.error_message)
    assert json.loads(Task.objects.get(pk=letter.task_id).error)["message"] == attempt.error_message
    assert "\\" in attempt.error_message


@pytest.mark.parametrize("words", NASTY)
def test_so_does_the_traceback_of_a_bug(make_letter: MakeLetter, words: str) -> None:
    letter = make_letter(error=ValueError(words))
    attempt = TaskAttempt.objects.get(task_id=letter.task_id)
    assert (attempt.error_message, letter.group.message) == ("ValueError", "ValueError")
    assert "ValueError: " in attempt.traceback


def test_whoever_cannot_take_the_news_undoes_the_death_and_its_letter(make_task: MakeTask, request: Any) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("no room")

    task = make_task()
    end = deaths([task], [InvalidRequest("x")])
    tasks_died.connect(refuse)  # after the intake, which has written by then
    request.addfinalizer(lambda: tasks_died.disconnect(refuse))
    with pytest.raises(RuntimeError):
        finish(end)
    task.refresh_from_db()
    assert task.state == "running"
    assert not DeadLetter.objects.exists()
    assert not FailureGroup.objects.exists()
    assert not TaskAttempt.objects.exists()


def test_a_letter_that_is_there_already_keeps_the_task_from_dying(make_task: MakeTask, make_letter: MakeLetter) -> None:
    letter, task = make_letter(), make_task()
    DeadLetter.objects.filter(pk=letter.pk).update(task_id=task.pk)
    with pytest.raises(IntegrityError, match=r"letter_of_a_cycle_once|letter_open_once"):
        finish(deaths([task], [InvalidRequest("x")]))


@pytest.mark.django_db(transaction=True)
def test_batches_that_die_of_the_same_causes_do_not_block_one_another(make_task: MakeTask, make_kind: MakeKind) -> None:
    kind = make_kind()
    causes = [InvalidRequest(f"cause {letter}") for letter in "abcdef"]
    tasks = [make_task(kind) for _ in range(48)]
    endings = deaths(tasks, [*causes, *causes[::-1]] * 4)
    batches = [endings[start : start + 6] for start in range(0, 48, 6)]
    assert together(8, lambda number: finish(batches[number])) == [["dead"] * 6] * 8
    assert DeadLetter.objects.count() == 48
    assert FailureGroup.objects.count() == 6
