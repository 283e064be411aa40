"""What was decided long ago goes with all that was kept of it; what nobody has decided on stays."""

from collections.abc import Callable
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import transaction

from apps.core import pruning
from apps.dead_letters import retention, triage
from apps.dead_letters.models import DeadLetter
from apps.tasks import retention as task_retention
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import Task, TaskAttempt, TaskPayload, TaskResult
from apps.tasks.verify import verify
from tests.dead_letters.conftest import MakeLetter, die
from tests.races import together
from tests.tasks.conftest import MakeTask, ending, take
from tests.time import age

pytestmark = pytest.mark.django_db
Discarded = Callable[..., DeadLetter]


@pytest.fixture(autouse=True)
def _all_invariants_hold() -> Any:
    yield
    assert [invariant.name for invariant, count, _ in verify() if count] == []


@pytest.fixture
def discarded(make_letter: MakeLetter) -> Discarded:
    """A letter that was discarded days ago: `discarded(days=31)`."""

    def make(*, days: float = 31, **fields: Any) -> DeadLetter:
        letter = make_letter(**fields)
        triage.discard(letter.pk, reason="of no use")
        letter.refresh_from_db()
        age(letter, days=days)
        return letter

    return make


def tasks_left() -> set[UUID]:
    return set(Task.objects.values_list("pk", flat=True))


def letters_left() -> set[UUID]:
    return set(DeadLetter.objects.values_list("pk", flat=True))


def test_a_discarded_task_goes_with_its_letter_and_all_that_was_kept_of_it(discarded: Discarded) -> None:
    discarded()
    young = discarded(days=29)
    assert retention.prune_discarded() == 1
    assert letters_left() == {young.pk}
    assert tasks_left() == {young.task_id}
    for rows in (TaskPayload.objects, TaskAttempt.objects):
        assert set(rows.values_list("task_id", flat=True)) == {young.task_id}
    assert retention.prune_discarded() == 0


def test_what_nobody_has_decided_on_stays_for_ever(make_letter: MakeLetter) -> None:
    letter = make_letter()
    for row in (letter, Task.objects.get(pk=letter.task_id), TaskAttempt.objects.get(task_id=letter.task_id)):
        age(row, days=4000)
    call_command("prune", stdout=StringIO())
    assert letters_left() == {letter.pk}
    assert tasks_left() == {letter.task_id}


def test_the_earlier_letters_of_a_discarded_task_go_with_it(make_letter: MakeLetter, discarded: Discarded) -> None:
    first, other = make_letter(), make_letter()
    triage.redrive(first.pk)
    triage.redrive(other.pk)
    die(Task.objects.get(pk=first.task_id))
    second = DeadLetter.objects.get(task_id=first.task_id, cycle=2)
    triage.discard(second.pk, reason="r")
    second.refresh_from_db()
    age(second, days=31)
    assert retention.prune_discarded() == 1
    assert letters_left() == {other.pk}


def test_a_redriven_letter_stays_as_long_as_its_task(make_letter: MakeLetter) -> None:
    letter = make_letter()
    triage.redrive(letter.pk)
    letter.refresh_from_db()
    age(letter, days=40)
    assert retention.prune_letters() == 0
    task = Task.objects.get(pk=letter.task_id)
    finish([ending(take(task))])
    assert retention.prune_letters() == 0
    task.refresh_from_db()
    age(task, days=40)
    assert task_retention.prune_tasks() == 1
    assert TaskResult.objects.count() == 0
    assert retention.prune_letters() == 1
    assert letters_left() == set()


def test_a_letter_of_yesterday_stays_though_its_task_is_gone(make_letter: MakeLetter) -> None:
    letter = make_letter()
    triage.redrive(letter.pk)
    Task.objects.all().delete()
    TaskPayload.objects.all().delete()
    assert retention.prune_letters() == 0
    assert letters_left() == {letter.pk}


def test_a_parent_waits_for_its_dead_child_and_goes_after_it(make_task: MakeTask, discarded: Discarded) -> None:
    parent = make_task(queue="low")
    child = discarded(parent_id=parent.pk, item_index=0)
    assert retention.prune_discarded() == 0  # its parent still counts it
    finish([ending(take(parent))])
    parent.refresh_from_db()
    age(parent, days=40)
    assert task_retention.prune_tasks() == 0
    assert retention.prune_discarded() == 1
    assert tasks_left() == {parent.pk} != {child.task_id}
    assert task_retention.prune_tasks() == 1


@pytest.mark.parametrize("decided", [True, False])
def test_a_discarded_parent_goes_with_its_children_once_none_is_open(
    discarded: Discarded, make_letter: MakeLetter, make_task: MakeTask, decided: bool
) -> None:
    parent = discarded(queue="high")
    done = make_task(queue="low", parent_id=parent.task_id, item_index=0)
    finish([ending(take(done))])
    if not decided:
        make_letter(parent_id=parent.task_id, item_index=1)
    assert retention.prune_discarded() == (2 if decided else 0)
    assert len(tasks_left()) == (0 if decided else 3)


def test_a_large_family_goes_in_batches_its_parent_and_letter_last(
    discarded: Discarded, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_retention, "ROWS_AT_ONCE", 3)
    parent = discarded(queue="high")
    for index in range(4):
        finish([ending(take(make_task(queue="low", parent_id=parent.task_id, item_index=index)))])
    assert retention.prune_discarded() == 3
    assert letters_left() == {parent.pk}
    assert retention.prune_discarded() == 2
    assert (letters_left(), tasks_left()) == (set(), set())


def test_the_days_are_those_of_tasks(discarded: Discarded, settings: Any) -> None:
    discarded(days=3)
    settings.REDRIVE = settings.REDRIVE.model_copy(update={"task_retention_days": 2})
    assert retention.prune_discarded() == 1


@pytest.mark.django_db(transaction=True)
def test_a_task_that_somebody_holds_is_left_for_later(discarded: Discarded) -> None:
    held, free = discarded(), discarded()
    with transaction.atomic():
        Task.objects.select_for_update().get(pk=held.task_id)
        assert together(1, lambda _: retention.prune_discarded()) == [1]
    assert letters_left() == {held.pk} != {free.pk}
    assert retention.prune_discarded() == 1


@pytest.mark.django_db(transaction=True)
def test_eight_who_prune_at_once_delete_each_task_once(discarded: Discarded) -> None:
    for _ in range(20):
        discarded()
    found = together(8, lambda _: retention.prune_discarded())
    assert sum(one for one in found if isinstance(one, int)) == 20
    assert all(isinstance(one, int) for one in found)
    assert (letters_left(), tasks_left()) == (set(), set())


def test_the_command_and_the_clock_do_it_after_the_keys_that_name_the_tasks(discarded: Discarded) -> None:
    names = [one.name for one in pruning.all_of_them()]
    assert names.index("idempotency_keys") < names.index("tasks_discarded")
    discarded()
    out = StringIO()
    call_command("prune", stdout=out)
    assert "Deleted 1 discarded tasks." in out.getvalue()
