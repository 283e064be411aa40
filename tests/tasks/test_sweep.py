"""The clock rings for what is due, though every ring was lost, and its heartbeat tells of failures."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.core import clock
from apps.tasks import doorbell, states, sweep
from apps.tasks.models import ClockBeat, QueueState, Task
from tests.tasks.conftest import MakeTask, take

pytestmark = pytest.mark.django_db
Rung = list[set[str]]


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> Rung:
    """The queues that were rung."""
    heard: Rung = []
    monkeypatch.setattr(doorbell, "ring", lambda queues: heard.append(set(queues)))
    return heard


def later(task: Task) -> None:
    Task.objects.filter(pk=task.pk).update(next_attempt_at=timezone.now() + timedelta(hours=1))


def paused(task: Task) -> None:
    QueueState.objects.create(name=task.queue, paused_at=timezone.now())


def test_each_queue_with_due_work_is_rung_once(make_task: MakeTask, rung: Rung) -> None:
    for queue in ("low", "low", "webhooks", "quarantine"):
        make_task(queue=queue)
    retried = make_task(queue="high")
    Task.objects.filter(pk=retried.pk).update(state=states.RETRYING)
    assert sweep.ring_due() == 4
    assert rung == [{"low", "webhooks", "quarantine", "high"}]


@pytest.mark.parametrize("change", [later, take], ids=["later", "running"])
def test_what_is_not_due_is_not_rung_for(make_task: MakeTask, rung: Rung, change: Callable[[Task], Any]) -> None:
    change(make_task())
    assert sweep.ring_due() == 0
    assert rung == [set()]


def test_a_pause_whose_time_has_come_ends_before_the_ring(make_task: MakeTask, rung: Rung) -> None:
    paused(make_task(queue="low"))
    QueueState.objects.update(resume_at=timezone.now() - timedelta(seconds=1))
    assert sweep.ring_due() == 1
    assert QueueState.objects.get().paused_at is None
    assert rung == [{"low"}]


def test_a_heartbeat_tells_who_did_a_chore_when_and_how_it_went() -> None:
    sweep.record_beat("ring", "host:1", "ValueError: no")
    first = ClockBeat.objects.get(chore="ring")
    assert (first.clock, first.error) == ("host:1", "ValueError: no")
    ClockBeat.objects.update(beat_at=timezone.now() - timedelta(hours=1))
    sweep.record_beat("ring", "host:2", "")
    again = ClockBeat.objects.get(chore="ring")
    assert (again.clock, again.error) == ("host:2", "")
    assert again.beat_at > timezone.now() - timedelta(minutes=1)


def test_a_chore_that_fails_leaves_its_words_where_postgres_can_hold_them() -> None:
    chore = clock.Chore("broken", 1.0, lambda: 0)
    clock.note_failure(chore, ValueError("a\0b \ud800" + "x" * 10_000), "host:3")
    beat = ClockBeat.objects.get(chore="broken")
    assert beat.error.startswith("ValueError: a\\0b \\ud800xx")
    assert len(beat.error) <= clock.MAX_ERROR
