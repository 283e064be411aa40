"""Each invariant finds the row that breaks it, and a database in which tasks lived as they should breaks none."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.utils import timezone

from apps.access.models import AuditEntry, IdempotencyRecord
from apps.completions.models import LedgerEntry
from apps.dead_letters import triage
from apps.dead_letters.models import DeadLetter
from apps.tasks import verify
from apps.tasks.kinds import Call
from apps.tasks.lifecycle.ending import failure_of
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import QueueState, Task, TaskAttempt, TaskPayload, TaskResult, WorkerPresence
from tests.completions.test_ledger import an_entry
from tests.tasks.conftest import MakeKind, MakeTask, ending, take

pytestmark = pytest.mark.django_db(transaction=True)
FAILURE = failure_of(ValueError("x"), kind="k", upstream="")
Break = Callable[[Task], Any]


def broken() -> dict[str, list[str]]:
    """The rows that break each invariant which is broken."""
    found: dict[str, list[str]] = {}
    for invariant, count, rows in verify.verify():
        if count:
            found.setdefault(invariant.name, []).extend(rows)
    return found


@pytest.fixture(autouse=True)
def _long_after_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    since = "pg_postmaster_start_time()"
    patched = [replace(one, query=one.query.replace(since, "'epoch'::timestamptz")) for one in verify._invariants]
    monkeypatch.setattr(verify, "_invariants", patched)


def done(make_task: MakeTask, *, kind: Any = None, **fields: Any) -> Task:
    """A task that has succeeded."""
    task = make_task(kind, **fields)
    finish([ending(take(task))])
    task.refresh_from_db()
    return task


def died(make_task: MakeTask) -> Task:
    """A task that is dead, with its letter."""
    task = make_task()
    finish([ending(take(task), "dead", "failed", charged=True, failure=FAILURE)])
    task.refresh_from_db()
    return task


def redriven(make_task: MakeTask) -> Task:
    """A task that died and was put back to work."""
    task = died(make_task)
    triage.redrive(DeadLetter.objects.get(task_id=task.pk).pk, reason="mended")
    task.refresh_from_db()
    return task


def parent_of(make_task: MakeTask, *, waits: bool) -> tuple[Task, Task]:
    """A parent that waits, or has succeeded, and its one child, which is pending."""
    parent = make_task() if waits else done(make_task)
    child = make_task(parent_id=parent.pk, item_index=0, queue="low")
    if waits:
        Task.objects.filter(pk=parent.pk).update(state="waiting")
    return parent, child


def present(worker: UUID, *, expires: float = 10, **fields: Any) -> WorkerPresence:
    """A worker of all queues that started long ago."""
    now = timezone.now()
    defaults: dict[str, Any] = {
        "lock_key": 1, "host": "h", "pid": 1, "queues": "high,default,low", "slots": 5, "in_flight": 0,
        "started_at": now - timedelta(hours=1), "expires_at": now + timedelta(seconds=expires),
    }  # fmt: skip
    return WorkerPresence.objects.create(id=worker, **{**defaults, **fields})


def long_due(task: Task) -> None:
    Task.objects.filter(pk=task.pk).update(next_attempt_at=timezone.now() - timedelta(minutes=1))


def test_a_sound_database_breaks_none(make_task: MakeTask, make_kind: MakeKind) -> None:
    kind = make_kind(call=lambda args: Call("chat/completions", "m", 1))
    make_task()
    called = make_task(kind, api_key_id=uuid4())
    claimed = take(called)
    booked = an_entry(task_id=called.pk, task_attempt=1, cost_nusd=7)
    finish([ending(claimed, entries=[booked], upstream="p/u")])
    done(make_task, kind=kind)  # without a key nothing is called
    died(make_task)
    again = redriven(make_task)
    finish([ending(take(again))])
    parent_of(make_task, waits=True)
    worker = uuid4()
    present(worker)
    take(make_task(), worker)
    _, doomed = parent_of(make_task, waits=False)
    take(doomed, worker)
    Task.objects.filter(pk=doomed.pk).update(cancel_requested=True)  # told to end, and about to
    assert broken() == {}


def test_every_invariant_of_the_list_is_asked() -> None:
    names = {invariant.name for invariant, _, _ in verify.verify()}
    assert names >= {f"I{number}" for number in range(1, 13)} - {"I8"}


ONE_OF_A_TASK: dict[str, tuple[str, Break]] = {
    "a payload that is gone": ("I1", lambda task: TaskPayload.objects.filter(task_id=task.pk).delete()),
    "an attempt that is missing": ("I3", lambda task: TaskAttempt.objects.filter(task_id=task.pk).delete()),
    "a result of another attempt": ("I4", lambda task: TaskResult.objects.filter(pk=task.pk).update(token=0)),
    "a result that is gone": ("I4", lambda task: TaskResult.objects.filter(pk=task.pk).delete()),
    "a failure that was not charged": (
        "I6",
        lambda task: TaskAttempt.objects.filter(task_id=task.pk).update(charged=True),
    ),
    "an attempt after the end": (
        "I7",
        lambda task: TaskAttempt.objects.filter(task_id=task.pk).update(finished_at=timezone.now()),
    ),
    "a result after the end": (
        "I7",
        lambda task: TaskResult.objects.filter(pk=task.pk).update(created_at=timezone.now()),
    ),
    "a cycle without a letter": ("I7", lambda task: Task.objects.filter(pk=task.pk).update(cycle=2)),
    "a cost that is not in the ledger": (
        "I10",
        lambda task: TaskAttempt.objects.filter(task_id=task.pk).update(cost_nusd=1),
    ),
    "an upstream that is not in the ledger": (
        "I10",
        lambda task: TaskAttempt.objects.filter(task_id=task.pk).update(upstream="p/u"),
    ),
}


@pytest.mark.parametrize("name", ONE_OF_A_TASK)
def test_what_is_wrong_with_a_finished_task_is_found(make_task: MakeTask, name: str) -> None:
    invariant, break_it = ONE_OF_A_TASK[name]
    task = done(make_task)
    sound = done(make_task)
    break_it(task)
    found = broken()
    assert str(task.pk) in found[invariant]
    assert str(sound.pk) not in str(found)


def test_a_key_without_its_task_is_found() -> None:
    IdempotencyRecord.objects.create(project_id=uuid4(), route="/v1/x", key="lost", digest="d", task_id=uuid4())
    assert broken() == {"I2": ["lost"]}


def test_a_death_without_its_letter_is_found(make_task: MakeTask) -> None:
    task = died(make_task)
    letter = DeadLetter.objects.get(task_id=task.pk)
    letter.delete()
    assert broken() == {"I5": [str(task.pk)], "I13": [letter.group_id]}


def test_a_redrive_that_nobody_audited_is_found(make_task: MakeTask) -> None:
    task, audited = redriven(make_task), redriven(make_task)
    letter = DeadLetter.objects.get(task_id=task.pk)
    # The audit itself refuses to lose a row: it is another letter's now.
    DeadLetter.objects.filter(pk=letter.pk).update(id=uuid4())
    assert broken() == {"I7": [str(task.pk)]}
    assert AuditEntry.objects.filter(action="redrive").count() == 2
    assert audited.cycle == 2


def test_a_letter_that_says_redriven_of_a_task_that_stays_dead_is_found(make_task: MakeTask) -> None:
    task = died(make_task)
    DeadLetter.objects.filter(task_id=task.pk).update(state="redriven", decided_at=timezone.now())
    assert str(task.pk) in broken()["I7"]


def test_a_final_parent_with_a_child_at_work_is_found(make_task: MakeTask) -> None:
    parent, child = parent_of(make_task, waits=False)
    assert broken() == {"I9": [str(parent.pk)]}
    Task.objects.filter(pk=child.pk).update(cycle=2)
    assert "I9" not in broken()  # it was redriven after its parent had finished


@pytest.mark.parametrize("children", [0, 1])
def test_a_parent_that_nobody_wakes_is_found(make_task: MakeTask, children: int) -> None:
    parent, child = parent_of(make_task, waits=True)
    if children:
        finish([ending(take(child))])
    else:
        Task.objects.filter(pk=child.pk).delete()
    assert "I9" not in broken()  # it is about to be woken
    past = timezone.now() - timedelta(minutes=2)
    Task.objects.filter(pk=parent.pk).update(created_at=past)
    Task.objects.filter(pk=child.pk).update(finished_at=past)
    assert broken()["I9"] == [str(parent.pk)]


@pytest.mark.parametrize("outcome", ["succeeded", "worker_lost"])
def test_a_call_that_is_not_in_the_ledger_is_found(make_task: MakeTask, make_kind: MakeKind, outcome: str) -> None:
    kind = make_kind(call=lambda args: Call("chat/completions", "m", 1))
    task = done(make_task, kind=kind, api_key_id=uuid4())
    TaskAttempt.objects.filter(task_id=task.pk).update(outcome=outcome)
    assert broken()["I10"] == [str(task.pk)]
    LedgerEntry.objects.create(**an_entry(task_id=task.pk, task_attempt=2)._asdict())
    assert broken()["I10"] == [str(task.pk)]  # that is of another attempt
    LedgerEntry.objects.update(task_attempt=1, outcome="interrupted", estimated=True)
    assert "I10" not in broken()


@pytest.mark.parametrize("expires", [None, -16.0])
def test_an_attempt_that_stays_with_a_lost_worker_is_found(make_task: MakeTask, expires: float | None) -> None:
    task, worker = make_task(), uuid4()
    take(task, worker)
    if expires is not None:
        present(worker, expires=expires)
    assert broken() == {}
    Task.objects.filter(pk=task.pk).update(attempt_started_at=timezone.now() - timedelta(minutes=1))
    assert broken() == {"I11": [str(task.pk)]}
    WorkerPresence.objects.filter(pk=worker).update(expires_at=timezone.now())
    assert broken() == ({} if expires is not None else {"I11": [str(task.pk)]})


def test_while_attempts_are_being_taken_the_rest_is_waited_for(make_task: MakeTask) -> None:
    other, task = done(make_task), make_task()
    take(task)
    Task.objects.filter(pk=task.pk).update(attempt_started_at=timezone.now() - timedelta(minutes=1))
    TaskAttempt.objects.filter(task_id=other.pk).update(outcome="worker_lost")
    assert "I11" not in broken()


def test_a_worker_that_only_looks_healthy_is_found(make_task: MakeTask) -> None:
    task, worker = make_task(), uuid4()
    present(worker)
    assert broken() == {}
    long_due(task)
    assert broken() == {"I12": [str(worker)]}


@pytest.mark.parametrize(
    "fields",
    [{"in_flight": 5}, {"queues": "webhooks"}, {"expires": -1}, {"started_at": timezone.now() + timedelta(hours=1)}],
)
def test_a_worker_that_cannot_claim_is_no_trouble(make_task: MakeTask, fields: dict[str, Any]) -> None:
    present(uuid4(), **fields)
    long_due(make_task())
    assert broken() == {}


def test_a_worker_that_claims_and_a_queue_that_is_paused_are_no_trouble(make_task: MakeTask) -> None:
    worker, held, waiting = uuid4(), make_task(), make_task(queue="low")
    present(worker)
    long_due(waiting)
    take(held, worker)
    assert broken() == {}
    finish([ending(take(make_task(), worker), worker=worker)])
    Task.objects.filter(pk=held.pk).update(attempt_started_at=timezone.now() - timedelta(minutes=1))
    assert broken() == {}
    TaskAttempt.objects.update(started_at=timezone.now() - timedelta(minutes=1))
    assert broken() == {"I12": [str(worker)]}
    QueueState.objects.create(name="low", paused_at=timezone.now())
    assert broken() == {}
