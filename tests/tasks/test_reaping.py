"""Workers that are lost, deadlines that pass, rows that nobody knows: every task is final once or still due."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import IntegrityError
from django.utils import timezone

from apps.tasks.lifecycle import leases, reap
from apps.tasks.lifecycle.claim import claim
from apps.tasks.lifecycle.expire import expire
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import ClockBeat, Task, TaskAttempt, WorkerPresence
from tests.races import together
from tests.tasks.conftest import MakeKind, MakeTask, ending, take

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _long_after_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        reap, "_FORGET_WORKERS", reap._FORGET_WORKERS.replace("pg_postmaster_start_time()", "'epoch'::timestamptz")
    )
    monkeypatch.setattr(reap, "_LOST", reap._LOST.replace("pg_postmaster_start_time()", "'epoch'::timestamptz"))


@pytest.mark.parametrize("state", ["pending", "retrying", "waiting"])
def test_what_passed_its_deadline_dies_of_it(make_task: MakeTask, news: dict[str, list[Any]], state: str) -> None:
    late, timely = make_task(deadline=10), make_task(deadline=1000)
    Task.objects.filter(pk=late.pk).update(state=state, deadline=timezone.now() - timedelta(seconds=1))
    assert expire() == 1
    late.refresh_from_db()
    timely.refresh_from_db()
    assert (late.state, timely.state) == ("dead", "pending")
    assert '"code":"timeout"' in late.error
    assert [death.error["code"] for death in news["died"]] == ["timeout"]


def present(worker: Any, *, expires: float) -> None:
    """A presence that expires in so many seconds."""
    now = timezone.now()
    WorkerPresence.objects.create(
        id=worker, lock_key=worker.int & 0x7FFFFFFF, host="h", pid=1, queues="", slots=1, beat_at=now,
        expires_at=now + timedelta(seconds=expires),
    )  # fmt: skip


def test_a_living_worker_keeps_its_attempts(make_task: MakeTask) -> None:
    task, worker = make_task(), uuid4()
    present(worker, expires=10)
    take(task, worker)
    assert reap.reap() == 0


def test_the_attempts_of_a_lost_worker_are_taken_and_never_charged(make_task: MakeTask) -> None:
    task, worker = make_task(), uuid4()
    present(worker, expires=-1)
    claimed = take(task, worker)
    assert reap.reap() == 1
    task.refresh_from_db()
    assert (task.state, task.worker_losses, task.charged_failures) == ("retrying", 1, 0)
    attempt = TaskAttempt.objects.get(task_id=task.pk)
    assert (attempt.outcome, attempt.charged, attempt.error_code) == ("worker_lost", False, "worker_lost")
    assert not WorkerPresence.objects.filter(pk=worker).exists()
    assert finish([ending(claimed)]) == [None]


def test_a_worker_whose_session_has_ended_is_lost_before_its_time(make_task: MakeTask) -> None:
    task, worker = make_task(), uuid4()
    present(worker, expires=100)
    WorkerPresence.objects.filter(pk=worker).update(beat_at=timezone.now() - timedelta(seconds=2))
    take(task, worker)
    assert reap.reap() == 1


def test_an_attempt_far_beyond_its_time_is_taken_from_a_living_worker(make_task: MakeTask) -> None:
    task, worker = make_task(), uuid4()
    present(worker, expires=100)
    take(task, worker)
    Task.objects.filter(pk=task.pk).update(run_until=timezone.now() - timedelta(seconds=reap.GRACE * 10 + 1))
    assert reap.reap() == 1


def test_losses_lead_to_quarantine_then_alone_then_death(make_task: MakeTask, news: dict[str, list[Any]]) -> None:
    task = make_task()
    seen = []
    for _ in range(5):
        Task.objects.filter(pk=task.pk).update(next_attempt_at=timezone.now())
        task.refresh_from_db()
        alone = task.worker_losses >= 4
        [claimed] = claim(task.queue, uuid4(), 10, limits={}, alone=alone)
        assert claimed.id == task.pk
        reap.reap()
        task.refresh_from_db()
        seen.append((task.state, task.queue))
    assert seen == [
        ("retrying", "default"), ("retrying", "default"), ("retrying", "quarantine"), ("retrying", "quarantine"),
        ("dead", "quarantine"),
    ]  # fmt: skip
    assert [death.error["code"] for death in news["died"]] == ["worker_lost"]
    assert TaskAttempt.objects.filter(task_id=task.pk, outcome="worker_lost").count() == 5


def test_after_a_while_without_reaping_workers_get_their_time_again(make_task: MakeTask) -> None:
    task, worker = make_task(), uuid4()
    present(worker, expires=-1)
    take(task, worker)
    ClockBeat.objects.create(chore="reap", beat_at=timezone.now() - timedelta(seconds=6))  # Postgres was frozen, say
    assert reap.reap() == 0
    ClockBeat.objects.update(beat_at=timezone.now())
    assert reap.reap() == 0
    WorkerPresence.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert reap.reap() == 1


def test_what_must_not_run_twice_dies_with_its_worker(make_task: MakeTask, make_kind: MakeKind) -> None:
    task = make_task(make_kind(idempotent=False))
    take(task)
    reap.reap()
    task.refresh_from_db()
    assert task.state == "dead"


def test_of_eight_reapers_one_takes_an_attempt(make_task: MakeTask) -> None:
    task = make_task()
    take(task)
    assert sorted(together(8, lambda _: reap.reap())) == [0] * 7 + [1]
    task.refresh_from_db()
    assert task.worker_losses == 1
    assert TaskAttempt.objects.filter(task_id=task.pk).count() == 1


def test_a_worker_hands_back_what_it_does_not_know(make_task: MakeTask) -> None:
    task, worker = make_task(), uuid4()
    take(task, worker)
    assert leases.hand_back(worker, known=[]) == 0  # its answer may be under way
    assert leases.hand_back(worker, known=[task.pk], age=0) == 0
    assert leases.hand_back(worker, known=[], age=0) == 1
    task.refresh_from_db()
    assert (task.state, task.worker_losses) == ("retrying", 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"state": "running"},
        {"state": "unheard"},
        {"state": "succeeded"},
        {"token": 5},
        {"finished_at": timezone.now()},
    ],
)
def test_the_database_refuses_a_row_that_makes_no_sense(make_task: MakeTask, fields: dict[str, Any]) -> None:
    task = make_task()
    with pytest.raises(IntegrityError):
        Task.objects.filter(pk=task.pk).update(**fields)
