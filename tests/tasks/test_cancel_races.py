"""A cancel that was answered is obeyed, whatever else happens to the task at that moment."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from django.db import connections, transaction

from apps.tasks.lifecycle import leases, reap
from apps.tasks.lifecycle.cancel import cancel
from apps.tasks.lifecycle.claim import Claimed
from apps.tasks.lifecycle.ending import failure_of
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import Task, TaskAttempt
from tests.races import wait_for_a_waiting_session
from tests.tasks.conftest import MakeTask, News, ending, take

pytestmark = pytest.mark.django_db(transaction=True)
FAILURE = failure_of(ValueError("x"), kind="k", upstream="")


def while_being_cancelled(task: Task, move: Callable[[], object]) -> None:
    """Let the move begin after the cancel has written and before it commits."""

    def moving() -> object:
        try:
            return move()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            cancel(task.pk)
            moved = pool.submit(moving)
            wait_for_a_waiting_session()
        moved.result(10)


@pytest.mark.parametrize(("state", "outcome"), [("retrying", "failed"), ("waiting", "waiting"), ("dead", "failed")])
def test_a_cancel_that_commits_while_the_end_is_written_is_obeyed(
    make_task: MakeTask, state: str, outcome: str, news: News
) -> None:
    task = make_task()
    end = ending(take(task), state, outcome, failure=FAILURE)
    while_being_cancelled(task, lambda: finish([end]))
    task.refresh_from_db()
    assert (task.state, task.cancel_requested) == ("cancelled", True)
    assert [one.state for one in news["finished"]] == ["cancelled"]
    assert news["died"] == []


def test_a_success_stands_though_a_cancel_came_just_before_it(make_task: MakeTask) -> None:
    task = make_task()
    end = ending(take(task))
    while_being_cancelled(task, lambda: finish([end]))
    task.refresh_from_db()
    assert task.state == "succeeded"


def test_a_cancel_that_commits_while_a_lost_worker_is_reaped_is_obeyed(make_task: MakeTask) -> None:
    task = make_task()
    take(task)
    while_being_cancelled(task, reap.reap)
    task.refresh_from_db()
    assert task.state == "cancelled"
    assert TaskAttempt.objects.get(task_id=task.pk).outcome == "worker_lost"


def test_what_is_handed_back_after_a_cancel_is_cancelled(make_task: MakeTask, news: News) -> None:
    task = make_task()
    worker = uuid4()
    claimed: Claimed = take(task, worker)
    cancel(task.pk)
    assert leases.hand_back(worker, known=[], age=-1) == 1
    task.refresh_from_db()
    assert task.state == "cancelled"
    assert [one.task_id for one in news["finished"]] == [claimed.id]
