"""What the status of a task tells of its letter, and what the home page counts."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.dead_letters import queries, tallies, triage
from apps.tasks.models import Task
from apps.tasks.queries import render
from tests.dead_letters.conftest import MakeLetter, die
from tests.tasks.conftest import MakeTask
from tests.time import age

pytestmark = pytest.mark.django_db


def test_a_dead_task_names_its_letter(make_letter: MakeLetter) -> None:
    letter = make_letter()
    [body] = render([Task.objects.get(pk=letter.task_id)])
    assert body["dead_letter"] == {"id": f"letter_{letter.pk.hex}", "state": "open"}


def test_a_task_that_never_died_has_none_and_costs_no_query(make_task: MakeTask) -> None:
    task = make_task()
    with CaptureQueriesContext(connection) as seen:
        assert queries.of_tasks([task]) == {}
    assert len(seen) == 0
    assert render([task])[0]["dead_letter"] is None


def test_of_several_letters_the_last_counts(make_letter: MakeLetter) -> None:
    first = make_letter()
    task = Task.objects.get(pk=first.task_id)
    triage.redrive(first.pk)
    task.refresh_from_db()
    assert queries.of_tasks([task]) == {task.pk: {"id": f"letter_{first.pk.hex}", "state": "redriven"}}
    die(task)
    task.refresh_from_db()
    found = queries.of_tasks([task])[task.pk]
    assert (found["state"], found["id"] == f"letter_{first.pk.hex}") == ("open", False)


def test_a_page_of_tasks_is_told_by_one_query(make_letter: MakeLetter) -> None:
    letters = [make_letter() for _ in range(5)]
    tasks = list(Task.objects.filter(pk__in=[letter.task_id for letter in letters]))
    with CaptureQueriesContext(connection) as seen:
        assert set(queries.of_tasks(tasks)) == {task.pk for task in tasks}
    assert len(seen) == 1


def test_the_header_says_how_many_letters_are_open_since_when_and_what_waits_for_a_look(
    make_letter: MakeLetter,
) -> None:
    assert queries.standing() == queries.Standing(0, 0, 0, 0, None, None)
    oldest, *_ = [make_letter() for _ in range(4)]
    age(oldest, hours=1)
    tallies.fold()
    stands = queries.standing()
    assert (stands.open_letters, stands.to_review, stands.new_groups) == (4, 4, 4)
    assert stands.since == oldest.created_at
    triage.discard(oldest.pk, reason="r")
    tallies.fold()
    assert queries.standing().open_letters == 3
