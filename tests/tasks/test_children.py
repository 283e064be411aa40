"""A parent's children are made once each, within bounds, and the parent goes on when they have ended."""

import json
from typing import Any
from uuid import uuid4

import pytest

from apps.tasks import children, queries, states
from apps.tasks.attempt import Run
from apps.tasks.executor import Executor
from apps.tasks.lifecycle import wake
from apps.tasks.lifecycle.cancel import cancel
from apps.tasks.lifecycle.claim import claim
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import Task, TaskAttempt, TaskPayload, TaskResult
from tests.tasks.conftest import Anything, MakeKind, MakeTask, News, ending, on_db, take, until


def a_parent(make_kind: MakeKind, child: str, items: list[Any]) -> Any:
    """A kind that has the items done and gives what came of them."""

    async def handle(run: Run, args: Anything) -> dict[str, Any]:
        await children.all_done(run, child, items)
        return {"parts": [(one.item_index, one.state, one.result) async for one in children.ended(run)]}

    return make_kind(handle)


def clock_until(task: Task) -> Any:
    """Wait for the end of a parent while the clock's chore is done again and again."""

    async def wait() -> Task:
        for _ in range(200):
            await on_db(wake.wake)()
            try:
                return await until(task, *states.FINAL, within=0.05)
            except TimeoutError:
                continue
        raise AssertionError("the parent has not ended")

    return wait()


async def test_a_parent_gets_the_results_of_its_children_in_order(
    worker: Executor, make_kind: MakeKind, make_task: MakeTask
) -> None:
    child = make_kind()
    kind = a_parent(make_kind, child.name, [{"n": n} for n in range(5)])
    parent = await clock_until(await on_db(make_task)(kind, metadata='{"a":"b"}'))
    assert parent.state == states.SUCCEEDED
    result = json.loads((await on_db(TaskResult.objects.get)(pk=parent.pk)).body)
    assert result["parts"] == [[n, "succeeded", {"n": n}] for n in range(5)]
    made = await on_db(lambda: list(Task.objects.filter(parent_id=parent.pk).order_by("item_index")))()
    assert [(one.queue, one.priority, one.project_id) for one in made] == [("low", "low", parent.project_id)] * 5
    outcomes = await on_db(
        lambda: list(TaskAttempt.objects.filter(task_id=parent.pk).order_by("number").values_list("outcome", "charged"))
    )()
    assert outcomes == [("waiting", False), ("succeeded", False)]


async def test_a_parent_without_items_ends_at_once(worker: Executor, make_kind: MakeKind, make_task: MakeTask) -> None:
    parent = await until(await on_db(make_task)(a_parent(make_kind, make_kind().name, [])), *states.FINAL)
    assert (parent.state, parent.attempt) == (states.SUCCEEDED, 1)


def waiting_parent(make_kind: MakeKind, make_task: MakeTask, items: int) -> tuple[Task, Run]:
    """A parent that has made what it may, and waits."""
    parent = make_task(make_kind())
    claimed = take(parent)
    run = Run(claimed, claimed.id)
    assert not children._top_up(run, make_kind(), [{"n": n} for n in range(items)])
    assert finish([ending(claimed, states.WAITING, "waiting")]) == [states.WAITING]
    parent.refresh_from_db()
    return parent, run


@pytest.mark.django_db(transaction=True)
def test_at_most_so_many_children_are_unfinished(make_kind: MakeKind, make_task: MakeTask) -> None:
    parent, _ = waiting_parent(make_kind, make_task, children.LIMIT + 10)
    mine = Task.objects.filter(parent_id=parent.pk)
    assert mine.count() == TaskPayload.objects.filter(task_id__in=mine.values("pk")).count() == children.LIMIT
    assert wake.wake() == 0
    ended = list(mine.order_by("item_index").values_list("pk", flat=True)[: children.LIMIT - wake.ROOM])
    for task_id in ended:
        cancel(task_id)
    assert wake.wake() == 1
    parent.refresh_from_db()
    assert parent.state == states.PENDING
    assert json.loads(parent.progress) == {"current": len(ended), "total": children.LIMIT + 10, "status": ""}
    again = take(parent)
    assert not children._top_up(Run(again, again.id), make_kind(), [{"n": n} for n in range(children.LIMIT + 10)])
    assert mine.count() == children.LIMIT + 10


@pytest.mark.django_db(transaction=True)
def test_an_attempt_that_lost_its_lease_makes_no_children(make_kind: MakeKind, make_task: MakeTask) -> None:
    parent, run = waiting_parent(make_kind, make_task, 2)
    assert not children._top_up(run, make_kind(), [{"n": n} for n in range(9)])
    assert Task.objects.filter(parent_id=parent.pk).count() == 2


@pytest.mark.django_db(transaction=True)
def test_cancelling_a_parent_cancels_its_children(make_kind: MakeKind, make_task: MakeTask, news: News) -> None:
    parent, _ = waiting_parent(make_kind, make_task, 3)
    (first,) = claim(states.LOW, uuid4(), 1, limits={})
    assert cancel(parent.pk).state == states.CANCELLED
    found = dict(Task.objects.filter(parent_id=parent.pk).values_list("pk", "state"))
    assert found.pop(first.id) == states.RUNNING
    assert set(found.values()) == {states.CANCELLED}
    assert Task.objects.get(pk=first.id).cancel_requested
    assert {one.parent_id for one in news["finished"]} == {None, parent.pk}


@pytest.mark.django_db(transaction=True)
def test_children_made_while_their_parent_was_cancelled_are_cancelled(make_kind: MakeKind, make_task: MakeTask) -> None:
    parent, _ = waiting_parent(make_kind, make_task, 2)
    Task.objects.filter(pk=parent.pk).update(state="cancelled", finished_at=parent.created_at)
    assert wake.cancel_orphans() == 2
    assert wake.cancel_orphans() == 0
    assert set(Task.objects.filter(parent_id=parent.pk).values_list("state", flat=True)) == {"cancelled"}


@pytest.mark.django_db(transaction=True)
def test_a_parent_that_waits_is_shown_as_running(make_kind: MakeKind, make_task: MakeTask) -> None:
    parent, _ = waiting_parent(make_kind, make_task, 2)
    assert queries.one(parent.project_id, parent.pk)["status"] == "running"


@pytest.mark.django_db
def test_what_a_parent_has_told_stays_while_its_children_are_counted(make_task: MakeTask) -> None:
    parent = make_task()
    Task.objects.filter(pk=parent.pk).update(
        state=states.WAITING, children_total=3, progress='{"current":0,"total":3,"status":"splitting"}'
    )
    make_task(parent_id=parent.pk, item_index=0)
    done = make_task(queue="low", parent_id=parent.pk, item_index=1)
    finish([ending(take(done))])
    wake.wake()
    parent.refresh_from_db()
    assert json.loads(parent.progress) == {"current": 1, "total": 3, "status": "splitting"}
