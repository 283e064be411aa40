"""What is deleted when, and what stays."""

import threading
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.management import call_command
from django.db import connection, transaction

from apps.access.models import IdempotencyRecord
from apps.core import clock, pruning
from apps.tasks import retention
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import Task, TaskAttempt, TaskPayload, TaskResult, WorkerPresence
from tests.tasks.conftest import MakeTask, ending, take
from tests.time import age

pytestmark = pytest.mark.django_db


@pytest.fixture
def ended(make_task: MakeTask) -> MakeTask:
    """A task that ended days ago: `ended(days=31, state="succeeded", parent_id=None)`."""

    def make(*, days: float = 31, state: str = "succeeded", **fields: Any) -> Task:
        task = make_task(**fields)
        if state == "pending":
            return task
        finish([ending(take(task))])
        Task.objects.filter(pk=task.pk).update(state=state)
        task.refresh_from_db()
        age(task, days=days)
        return task

    return make


def left() -> set[UUID]:
    return set(Task.objects.values_list("pk", flat=True))


def test_an_old_task_goes_with_all_that_was_kept_of_it(ended: MakeTask) -> None:
    ended()
    young = ended(days=29)
    assert retention.prune_tasks() == 1
    for rows in (TaskPayload.objects, TaskResult.objects, TaskAttempt.objects):
        assert set(rows.values_list("task_id", flat=True)) == {young.pk}
    assert left() == {young.pk}
    assert retention.prune_tasks() == 0


@pytest.mark.parametrize(("state", "stays"), [("succeeded", False), ("cancelled", False), ("dead", True)])
def test_only_the_dead_wait_for_a_decision(ended: MakeTask, state: str, stays: bool) -> None:
    ended(state=state)
    retention.prune_tasks()
    assert bool(left()) is stays


def test_a_task_that_has_not_ended_is_never_old(make_task: MakeTask) -> None:
    task = make_task()
    age(task, days=400)
    assert retention.prune_tasks() == 0


@pytest.mark.parametrize(
    ("state", "stays"), [("succeeded", False), ("cancelled", False), ("dead", True), ("pending", True)]
)
def test_children_go_with_their_parent_and_keep_it_while_they_are_open(
    ended: MakeTask, state: str, stays: bool
) -> None:
    parent = ended()
    for index in range(3):
        ended(days=35, parent_id=parent.pk, item_index=index)
    ended(days=35, state=state, parent_id=parent.pk, item_index=3)
    retention.prune_tasks()
    assert len(left()) == (5 if stays else 0)


def test_a_child_is_not_taken_before_its_parent(ended: MakeTask) -> None:
    parent = ended(days=1)
    ended(days=40, parent_id=parent.pk, item_index=0)
    assert retention.prune_tasks() == 0


def test_a_large_family_goes_in_batches_the_parent_last(ended: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "ROWS_AT_ONCE", 3)
    parent = ended()
    for index in range(4):
        ended(parent_id=parent.pk, item_index=index)
    assert retention.prune_tasks() == 3
    assert parent.pk in left()
    assert retention.prune_tasks() == 2
    assert left() == set()


def test_the_days_are_a_setting(ended: MakeTask, settings: Any) -> None:
    ended(days=3)
    settings.REDRIVE = settings.REDRIVE.model_copy(update={"task_retention_days": 2})
    assert retention.prune_tasks() == 1


@pytest.mark.django_db(transaction=True)
def test_a_task_that_somebody_holds_is_left_for_later(ended: MakeTask) -> None:
    held, free = ended(days=32), ended()
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            Task.objects.select_for_update().get(pk=held.pk)
            locked.set()
            done.wait(10)
        connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    assert locked.wait(10)
    assert retention.prune_tasks() == 1
    assert left() == {held.pk} != {free.pk}
    done.set()
    holder.join()
    assert retention.prune_tasks() == 1


def test_keys_of_yesterday_go_and_those_of_today_stay(make_task: MakeTask) -> None:
    for name in ("old", "young"):
        task = make_task()
        row = IdempotencyRecord.objects.create(
            project_id=task.project_id, route="/v1/tasks", key=name, digest="d", task_id=task.pk
        )
        row.refresh_from_db()
        IdempotencyRecord.objects.filter(key="old").update(created_at=row.created_at - timedelta(hours=25))
    call_command("prune", stdout=StringIO())
    assert [row.key for row in IdempotencyRecord.objects.all()] == ["young"]


def test_the_command_and_the_clock_prune_everything_there_is(ended: MakeTask) -> None:
    out = StringIO()
    for number in range(2):
        ended()
        worker = WorkerPresence.objects.create(
            id=uuid4(), lock_key=1, host="h", pid=number, queues="low", slots=1, expires_at="2020-01-01T00:00:00Z"
        )
        if number == 0:
            call_command("prune", stdout=out)
            assert "Deleted 1 tasks." in out.getvalue()
            assert "Deleted 1 workers." in out.getvalue()
        else:
            chore = next(one for one in clock.chores() if one.name == "prune")
            assert clock.do(chore) == 2
        assert not WorkerPresence.objects.filter(pk=worker.pk).exists()
        assert left() == set()


def test_keys_are_pruned_before_the_tasks_they_name() -> None:
    names = [one.name for one in pruning.all_of_them()]
    assert names.index("idempotency_keys") < names.index("tasks")
