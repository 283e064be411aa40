"""Every move of a task is made by exactly one, and only from where it may start."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import transaction
from django.utils import timezone

from apps.core.errors import Conflict, NotFound
from apps.tasks.errors import TaskIsFinal
from apps.tasks.lifecycle import leases
from apps.tasks.lifecycle.cancel import cancel
from apps.tasks.lifecycle.claim import claim
from apps.tasks.lifecycle.ending import failure_of
from apps.tasks.lifecycle.finish import finish
from apps.tasks.lifecycle.revive import revive
from apps.tasks.models import QueueState, RetryHold, Task, TaskAttempt, TaskPayload, TaskResult
from apps.tasks.signals import tasks_died
from tests.races import together
from tests.tasks.conftest import MakeKind, MakeTask, ending, take
from tests.time import age

pytestmark = pytest.mark.django_db(transaction=True)
FAILURE = failure_of(ValueError("x"), kind="k", upstream="")


def test_a_claim_gives_the_arguments_and_a_token_and_starts_the_clock(make_task: MakeTask) -> None:
    task = make_task(args={"a": "\x00\ud800"})
    claimed = take(task)
    assert claimed.arguments() == {"a": "\x00\ud800"}
    task.refresh_from_db()
    assert (task.state, task.attempt, task.token) == ("running", 1, claimed.token)
    assert task.run_until is not None
    assert task.run_until - timezone.now() > timedelta(seconds=590)


@pytest.mark.parametrize(
    "fields",
    [
        {"next_attempt_at": timezone.now() + timedelta(hours=1)},
        {"deadline": timezone.now() - timedelta(seconds=1)},
        {"state": "waiting"},
    ],
)
def test_what_is_not_due_is_not_claimed(make_task: MakeTask, fields: dict[str, Any]) -> None:
    task = make_task()
    Task.objects.filter(pk=task.pk).update(**fields)
    assert task.pk not in {one.id for one in claim("default", uuid4(), 1000, limits={})}


def test_a_paused_queue_gives_nothing_until_it_resumes(make_task: MakeTask) -> None:
    task = make_task()
    QueueState.objects.create(name="default", paused_at=timezone.now())
    assert claim("default", uuid4(), 1000, limits={}) == []
    QueueState.objects.update(resume_at=timezone.now() - timedelta(seconds=1))
    assert take(task).id == task.pk


def test_the_oldest_due_is_claimed_first(make_task: MakeTask) -> None:
    tasks = [make_task() for _ in range(3)]
    for hours, task in enumerate(tasks):
        Task.objects.filter(pk=task.pk).update(next_attempt_at=timezone.now() - timedelta(hours=hours))
    assert [one.id for one in claim("default", uuid4(), 2, limits={})] == [tasks[2].pk, tasks[1].pk]


def test_a_task_without_its_payload_is_claimed_all_the_same(make_task: MakeTask) -> None:
    task = make_task()
    TaskPayload.objects.filter(task_id=task.pk).delete()
    with pytest.raises(ValueError):
        take(task).arguments()


def test_of_eight_claimers_each_task_goes_to_one(make_task: MakeTask) -> None:
    mine = {make_task().pk for _ in range(40)}
    found = together(8, lambda _: [one.id for one in claim("default", uuid4(), 10, limits={})])
    taken = [task_id for part in found for task_id in part]  # type: ignore[union-attr]
    assert len(taken) == len(set(taken))
    assert mine == set(taken)


def test_a_result_is_kept_with_its_attempt(make_task: MakeTask, news: dict[str, list[Any]]) -> None:
    task = make_task()
    claimed = take(task)
    assert finish([ending(claimed, result='{"a":"\\u0000\\ud800"}')]) == ["succeeded"]
    task.refresh_from_db()
    assert (task.state, task.token, task.worker) == ("succeeded", None, None)
    assert task.finished_at is not None
    attempt = TaskAttempt.objects.get(task_id=task.pk)
    assert (attempt.number, attempt.outcome, attempt.token) == (1, "succeeded", claimed.token)
    result = TaskResult.objects.get(pk=task.pk)
    assert (result.body, result.token) == ('{"a":"\\u0000\\ud800"}', claimed.token)
    assert [one.task_id for one in news["finished"]] == [task.pk]


@pytest.mark.parametrize("end", ["again", "after another claim"])
def test_a_late_end_changes_nothing(make_task: MakeTask, end: str) -> None:
    task = make_task()
    claimed = take(task)
    assert finish([ending(claimed, "retrying", "failed", failure=FAILURE)]) == ["retrying"]
    if end == "after another claim":
        take(task)
    before = Task.objects.filter(pk=task.pk).values().get()
    assert finish([ending(claimed)]) == [None]
    assert Task.objects.filter(pk=task.pk).values().get() == before
    assert TaskAttempt.objects.filter(task_id=task.pk).count() == 1
    assert not TaskResult.objects.filter(pk=task.pk).exists()


def test_of_eight_finishers_one_wins(make_task: MakeTask) -> None:
    task = make_task()
    claimed = take(task)
    won = together(8, lambda number: finish([ending(claimed, result=f'{{"n":{number}}}')])[0])
    assert won.count("succeeded") == 1
    assert won.count(None) == 7
    assert TaskAttempt.objects.filter(task_id=task.pk).count() == 1


def test_a_failure_is_charged_and_waits(make_task: MakeTask, news: dict[str, list[Any]]) -> None:
    task = make_task()
    finish([ending(take(task), "retrying", "failed", failure=FAILURE, charged=True, delay=100)])
    task.refresh_from_db()
    assert (task.state, task.charged_failures, task.finished_at) == ("retrying", 1, None)
    assert timedelta(seconds=95) < task.next_attempt_at - timezone.now() < timedelta(seconds=101)
    assert news == {"finished": [], "died": []}


def test_a_death_tells_its_error(make_task: MakeTask, news: dict[str, list[Any]]) -> None:
    task = make_task()
    finish([ending(take(task), "dead", "failed", failure=FAILURE, charged=True)])
    task.refresh_from_db()
    assert task.state == "dead"
    assert '"code":"internal_error"' in task.error
    [death] = news["died"]
    assert (death.task_id, death.cycle, death.error["code"]) == (task.pk, 1, "internal_error")
    assert death.fingerprint == FAILURE.fingerprint


def test_without_its_receivers_no_task_is_dead(make_task: MakeTask, request: Any) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("no letter")

    tasks_died.connect(refuse)
    request.addfinalizer(lambda: tasks_died.disconnect(refuse))
    task = make_task()
    claimed = take(task)
    with pytest.raises(RuntimeError):
        finish([ending(claimed, "dead", "failed", failure=FAILURE)])
    task.refresh_from_db()
    assert (task.state, task.token) == ("running", claimed.token)


def test_a_held_fingerprint_is_not_retried(make_task: MakeTask) -> None:
    RetryHold.objects.create(fingerprint=FAILURE.fingerprint)
    charged, parked = make_task(), make_task(queue="low")
    finish([ending(take(charged), "retrying", "failed", failure=FAILURE, charged=True)])
    finish([ending(take(parked), "retrying", "parked", failure=FAILURE, parked=True)])
    charged.refresh_from_db()
    parked.refresh_from_db()
    assert (charged.state, parked.state) == ("dead", "retrying")


def test_parking_counts_from_the_first_time_until_an_attempt_gets_through(make_task: MakeTask) -> None:
    task = make_task()
    finish([ending(take(task), "retrying", "parked", failure=FAILURE, parked=True)])
    first = Task.objects.get(pk=task.pk).parked_since
    finish([ending(take(task), "retrying", "parked", failure=FAILURE, parked=True)])
    assert Task.objects.get(pk=task.pk).parked_since == first
    assert first is not None
    finish([ending(take(task), "retrying", "failed", failure=FAILURE, charged=True)])
    assert Task.objects.get(pk=task.pk).parked_since is None


def test_cancelling_what_waits_ends_it_at_once_and_twice_is_no_error(
    make_task: MakeTask, news: dict[str, list[Any]]
) -> None:
    task = make_task()
    assert cancel(task.pk, project_id=task.project_id).state == "cancelled"
    assert cancel(task.pk, project_id=task.project_id).state == "cancelled"
    assert [one.state for one in news["finished"]] == ["cancelled"]


def test_cancelling_what_runs_asks_its_worker(make_task: MakeTask) -> None:
    task, worker = make_task(), uuid4()
    claimed = take(task, worker)
    assert cancel(task.pk).state == "running"
    assert leases.held(worker) == {task.pk: leases.Held(claimed.token, True)}
    assert finish([ending(claimed, "retrying", "failed", failure=FAILURE)]) == ["cancelled"]


def test_a_success_wins_over_a_cancel_that_comes_too_late(make_task: MakeTask) -> None:
    task = make_task()
    claimed = take(task)
    cancel(task.pk)
    assert finish([ending(claimed)]) == ["succeeded"]
    with pytest.raises(Conflict):
        cancel(task.pk)


def test_nobody_cancels_the_task_of_another_project(make_task: MakeTask) -> None:
    with pytest.raises(NotFound):
        cancel(make_task().pk, project_id=uuid4())
    with pytest.raises(NotFound):
        cancel(uuid4())


def test_cancelling_a_parent_cancels_its_unfinished_children(make_task: MakeTask) -> None:
    parent = make_task()
    Task.objects.filter(pk=parent.pk).update(state="waiting")
    done, due = (make_task(parent_id=parent.pk, item_index=index) for index in range(2))
    Task.objects.filter(pk=done.pk).update(state="succeeded", finished_at=timezone.now())
    cancel(parent.pk)
    states_now = dict(Task.objects.filter(pk__in=[parent.pk, done.pk, due.pk]).values_list("pk", "state"))
    assert states_now == {parent.pk: "cancelled", done.pk: "succeeded", due.pk: "cancelled"}


def test_eight_racing_to_cancel_and_finish_leave_one_end(make_task: MakeTask, news: dict[str, list[Any]]) -> None:
    task = make_task()
    claimed = take(task)

    def act(number: int) -> Any:
        return cancel(task.pk).state if number % 2 else finish([ending(claimed)])[0]

    for found in together(8, act):
        assert found in ("succeeded", "running", None) or isinstance(found, TaskIsFinal), found
    task.refresh_from_db()
    assert task.state == "succeeded"
    assert len(news["finished"]) == 1


def test_a_redrive_begins_a_new_cycle(make_task: MakeTask) -> None:
    task, then = make_task(priority="high", queue="quarantine", deadline=100), timezone.now() - timedelta(hours=5)
    Task.objects.filter(pk=task.pk).update(
        state="dead", finished_at=timezone.now(), attempt=4, charged_failures=4, worker_losses=3, error="{}",
        created_at=then, deadline=then + timedelta(seconds=100),
    )  # fmt: skip
    with transaction.atomic():
        assert revive([task.pk]) == {task.pk}
        assert revive([task.pk]) == set()
    task.refresh_from_db()
    assert (task.state, task.cycle, task.attempt, task.charged_failures, task.worker_losses) == ("pending", 2, 4, 0, 0)
    assert (task.queue, task.error, task.finished_at) == ("high", "", None)
    assert task.deadline is not None
    assert timedelta(seconds=90) < task.deadline - timezone.now() <= timedelta(seconds=100)
    assert take(task).attempt == 5


def test_each_redrive_gives_the_time_that_was_asked_for(make_task: MakeTask) -> None:
    task = make_task(deadline=100.0)
    for _ in range(3):
        age(task, days=10)
        Task.objects.filter(pk=task.pk).update(state="dead", finished_at=timezone.now())
        assert revive([task.pk])
        task.refresh_from_db()
        assert task.deadline is not None
        assert timedelta(seconds=90) < task.deadline - timezone.now() <= timedelta(seconds=100)


def test_a_redriven_task_waits_where_its_kind_waits(make_task: MakeTask, make_kind: MakeKind) -> None:
    task = make_task(make_kind(queue="webhooks"), queue="quarantine")
    Task.objects.filter(pk=task.pk).update(state="dead", finished_at=timezone.now())
    revive([task.pk])
    task.refresh_from_db()
    assert task.queue == "webhooks"


def test_of_eight_redrives_one_wins(make_task: MakeTask) -> None:
    task = make_task()
    Task.objects.filter(pk=task.pk).update(state="dead", finished_at=timezone.now())

    def redrive(_: int) -> int:
        with transaction.atomic():
            return len(revive([task.pk]))

    assert sorted(together(8, redrive)) == [0] * 7 + [1]
    assert Task.objects.get(pk=task.pk).cycle == 2


def test_the_result_after_a_redrive_takes_the_place_of_the_one_before(make_task: MakeTask) -> None:
    task = make_task()
    finish([ending(take(task), "dead", "timed_out", charged=True, result='{"status":"timeout"}')])
    assert TaskResult.objects.get(pk=task.pk).body == '{"status":"timeout"}'
    with transaction.atomic():
        revive([task.pk])
    again = take(task)
    finish([ending(again, result='{"status":"completed"}')])
    result = TaskResult.objects.get(pk=task.pk)
    assert (result.body, result.token) == ('{"status":"completed"}', again.token)
