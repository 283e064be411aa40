"""What is told of a task is whole where one asks for it, and bounded where many are told."""

import contextlib
from uuid import uuid4

import pytest
from django.utils import timezone

from apps.tasks import queries
from apps.tasks.events import follow
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import Task
from tests.tasks.conftest import MakeTask, ending, on_db, take


def with_result(make_task: MakeTask, size: int) -> Task:
    """A task that succeeded with a result of so many bytes."""
    task = make_task()
    finish([ending(take(task), result='{"x":"' + "y" * (size - 8) + '"}')])
    task.refresh_from_db()
    return task


@pytest.mark.django_db(transaction=True)
def test_a_list_leaves_out_large_results_and_says_so(make_task: MakeTask) -> None:
    small, large = (with_result(make_task, queries.LARGEST_LISTED + more) for more in (0, 1))
    for task, omitted in ((small, False), (large, True)):
        (listed,) = queries.page(task.project_id, queries.Filters(), after=None, limit=10)["data"]
        assert (listed["result"] is None, listed.get("result_omitted", False)) == (omitted, omitted)
        whole = queries.one(task.project_id, task.pk)
        assert len(whole["result"]["x"]) > 60_000
        assert "result_omitted" not in whole


async def test_the_last_event_leaves_out_a_large_result(transactional_db: None, make_task: MakeTask) -> None:
    for more, omitted in ((0, False), (1, True)):
        task = await on_db(with_result)(make_task, queries.LARGEST_TOLD + more)
        async with contextlib.aclosing(follow(task.project_id, task.pk)) as events:
            last = [event async for event in events][-1]
        assert last.data["task"].get("result_omitted", False) is omitted


@pytest.mark.django_db(transaction=True)
def test_tasks_that_run_or_wait_for_children_are_listed_as_running(make_task: MakeTask) -> None:
    project_id = uuid4()
    running, waiting, due = (make_task(project_id=project_id) for _ in range(3))
    others = make_task()
    lease = {"state": "running", "token": 1, "worker": uuid4(), "run_until": timezone.now()}
    Task.objects.filter(pk__in=[running.pk, others.pk]).update(**lease)
    Task.objects.filter(pk=waiting.pk).update(state="waiting")

    def listed(status: str) -> list[str]:
        found = queries.page(project_id, queries.Filters(status=status), after=None, limit=10)["data"]
        return [one["task_id"] for one in found]

    assert listed("running") == [queries.shown_id(task.pk) for task in (waiting, running)]
    assert listed("pending") == [queries.shown_id(due.pk)]
