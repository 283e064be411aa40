"""What is told of a task is whole where one asks for it, and bounded where many are told."""

import contextlib

import pytest

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
