"""The table of moves is what the verbs do: each is driven from each state, and what moved is compared."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import transaction
from django.utils import timezone

from apps.tasks import kinds, states
from apps.tasks.errors import TaskIsFinal
from apps.tasks.lifecycle import leases, reap, wake
from apps.tasks.lifecycle.cancel import cancel
from apps.tasks.lifecycle.claim import Claimed, claim
from apps.tasks.lifecycle.ending import failure_of
from apps.tasks.lifecycle.expire import expire
from apps.tasks.lifecycle.finish import finish
from apps.tasks.lifecycle.revive import revive
from apps.tasks.models import RetryHold, Task
from tests.tasks.conftest import MakeKind, MakeTask, ending, take

pytestmark = pytest.mark.django_db
FAILURE = failure_of(ValueError("x"), kind="k", upstream="")
Verb = Callable[[Task, Claimed], object]


def claim_it(task: Task, lease: Claimed) -> None:
    claim(task.queue, uuid4(), 10, limits=kinds.limits())


def finish_as(state: str) -> Verb:
    return lambda task, lease: finish([ending(lease, state, "failed", failure=FAILURE)])


def finish_after_a_cancel(task: Task, lease: Claimed) -> None:
    cancel_it(task, lease)
    finish_as(states.RETRYING)(task, lease)


def finish_of_a_held_fingerprint(task: Task, lease: Claimed) -> None:
    RetryHold.objects.create(fingerprint=FAILURE.fingerprint)
    finish([ending(lease, states.RETRYING, "failed", failure=FAILURE, charged=True)])


def cancel_it(task: Task, lease: Claimed) -> None:
    with suppress(TaskIsFinal):
        cancel(task.pk)


def expire_it(task: Task, lease: Claimed) -> None:
    Task.objects.filter(pk=task.pk).update(deadline=timezone.now() - timedelta(hours=1))
    expire()


def reap_it(task: Task, lease: Claimed) -> None:
    Task.objects.filter(pk=task.pk, state=states.RUNNING).update(run_until=timezone.now() - timedelta(hours=1))
    reap.reap()


def hand_it_back(task: Task, lease: Claimed) -> None:
    for worker in Task.objects.filter(pk=task.pk, worker__isnull=False).values_list("worker", flat=True):
        leases.hand_back(worker, known=[], age=-1)


def wake_it(task: Task, lease: Claimed) -> None:
    wake.wake()


def wake_it_with_a_child(task: Task, lease: Claimed) -> None:
    Task.objects.filter(pk=take_another(task).id).update(parent_id=task.pk, item_index=0)
    Task.objects.filter(pk=task.pk).update(children_total=1)
    wake.wake()


def take_another(task: Task) -> Claimed:
    """A running task beside it."""
    other = Task.objects.exclude(pk=task.pk).get()
    return take(other)


def orphan_it(task: Task, lease: Claimed) -> None:
    parent = Task.objects.exclude(pk=task.pk).get()
    cancel(parent.pk)
    Task.objects.filter(pk=task.pk).update(parent_id=parent.pk, item_index=0)
    wake.cancel_orphans()


def cancel_its_parent(task: Task, lease: Claimed) -> None:
    parent = Task.objects.exclude(pk=task.pk).get()
    Task.objects.filter(pk=task.pk).update(parent_id=parent.pk, item_index=0)
    cancel(parent.pk)


def revive_it(task: Task, lease: Claimed) -> None:
    revive([task.pk])


VERBS: dict[str, Verb] = {
    "claim": claim_it,
    **{f"finish as {state}": finish_as(state) for state in sorted(states.TRANSITIONS[states.RUNNING])},
    "finish after a cancel": finish_after_a_cancel,
    "finish of a held fingerprint": finish_of_a_held_fingerprint,
    "cancel": cancel_it,
    "cancel of the parent": cancel_its_parent,
    "cancel of an orphan": orphan_it,
    "expire": expire_it,
    "reap": reap_it,
    "hand back": hand_it_back,
    "wake": wake_it,
    "wake with a child": wake_it_with_a_child,
    "revive": revive_it,
}


@contextmanager
def undone() -> Iterator[None]:
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@pytest.fixture
def a_task_in(make_task: MakeTask, make_kind: MakeKind) -> Callable[..., tuple[Task, Claimed]]:
    """A task in a state, with the lease of its last attempt; beside it another that is due in another queue."""

    def make(state: str, *, idempotent: bool = True) -> tuple[Task, Claimed]:
        make_task(queue="low")
        task = make_task(make_kind(idempotent=idempotent))
        lease = take(task)
        if state != states.RUNNING:
            Task.objects.filter(pk=task.pk).update(
                state=state, token=None, worker=None, run_until=None,
                finished_at=timezone.now() if state in states.FINAL else None,
            )  # fmt: skip
        return task, lease

    return make


def test_the_verbs_make_exactly_the_moves_of_the_table(a_task_in: Callable[..., tuple[Task, Claimed]]) -> None:
    moved: dict[str, set[str]] = {state: set() for state in states.ALL}
    for source in states.ALL:
        for name, verb in VERBS.items():
            for idempotent in (True, False):
                with undone():
                    task, lease = a_task_in(source, idempotent=idempotent)
                    verb(task, lease)
                    target = Task.objects.get(pk=task.pk).state
                if target != source:
                    assert target in states.TRANSITIONS[source], f"{name}: {source} -> {target}"
                    moved[source].add(target)
    assert moved == states.TRANSITIONS


@pytest.mark.parametrize("source", states.FINAL)
def test_nothing_but_a_redrive_leads_out_of_an_end(a_task_in: Callable[..., tuple[Task, Claimed]], source: str) -> None:
    for name, verb in VERBS.items():
        if name != "revive":
            with undone():
                task, lease = a_task_in(source)
                before = Task.objects.filter(pk=task.pk).values("state", "attempt", "error", "cancel_requested").get()
                verb(task, lease)
                after = Task.objects.filter(pk=task.pk).values("state", "attempt", "error", "cancel_requested").get()
            assert after == before, name
