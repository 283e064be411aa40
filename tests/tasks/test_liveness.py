"""Who works and who is silent, for operators and for /readyz."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from apps.core import clock, health
from apps.core.clock import Chore
from apps.core.database import in_db
from apps.core.health import Unwell
from apps.tasks import liveness, queues, states, sweep
from apps.tasks.models import ClockBeat, WorkerPresence
from tests.tasks.conftest import MakeTask, on_db
from tests.time import age

pytestmark = pytest.mark.django_db(transaction=True)


def present(queues_: str = ",".join(states.QUEUES), **fields: Any) -> WorkerPresence:
    """A worker that has just given a sign of life."""
    now = timezone.now()
    values = {"started_at": now, "beat_at": now, "expires_at": now + timedelta(seconds=10), **fields}
    return WorkerPresence.objects.create(id=uuid4(), lock_key=1, host="h", pid=1, queues=queues_, slots=5, **values)


def beat(**ages: float) -> None:
    """All chores were done just now; those named so many seconds ago."""
    for chore in clock.chores():
        sweep.record_beat(chore.name, "h:1", "")
        if chore.name in ages:
            age(ClockBeat.objects.get(pk=chore.name), seconds=ages[chore.name])


def states_of_workers() -> list[str]:
    return [worker.state for worker in liveness.workers()]


def test_a_worker_is_idle_working_or_silent() -> None:
    worker = present()
    assert states_of_workers() == ["idle"]
    WorkerPresence.objects.update(in_flight=2)
    assert states_of_workers() == ["working"]
    worker.refresh_from_db()
    age(worker, seconds=11)
    assert states_of_workers() == ["silent"]
    assert 11 <= liveness.workers()[0].age < 60


def test_one_that_is_alive_but_idle_while_work_waits_is_told_apart(make_task: MakeTask) -> None:
    present("low", started_at=timezone.now() - timedelta(minutes=1))
    task = make_task(queue="low")
    assert states_of_workers() == ["idle"]  # it has had no time yet
    age(task, seconds=20)
    (worker,) = liveness.workers()
    assert (worker.state, list(worker.waiting)) == ("stuck", ["low"])
    queues.pause("low", reason="r")
    assert states_of_workers() == ["idle"]


def test_work_in_the_queues_of_others_makes_nobody_stuck(make_task: MakeTask) -> None:
    present("low", started_at=timezone.now() - timedelta(minutes=1))
    age(make_task(queue="high"), seconds=20)
    assert states_of_workers() == ["idle"]


def test_a_chore_is_ok_late_failing_or_was_never_done() -> None:
    assert {one.state for one in liveness.chores()} == {"never"}
    beat(reap=11.0, prune=25.0)
    sweep.record_beat("expire", "h:1", "ValueError: x")
    found = {one.name: one.state for one in liveness.chores()}
    assert (found["ring"], found["reap"], found["prune"], found["expire"]) == ("ok", "late", "ok", "failing")


def test_a_chore_that_fails_leaves_its_error_in_the_heartbeat_until_it_succeeds() -> None:
    healed = False

    def work() -> int:
        if not healed:
            raise ValueError("no such luck\0")
        ticking.stop()
        return 1

    ticking = clock.Clock()
    chore = Chore("ring", 0.01, work)
    with pytest.raises(ValueError, match="no such luck"):
        clock.do(chore, "h:1")
    clock.note_failure(chore, ValueError("no such luck\0"), "h:1")
    assert ClockBeat.objects.get(pk="ring").error == "ValueError: no such luck\\0"
    healed = True
    ticking._repeat(chore)
    assert ClockBeat.objects.get(pk="ring").error == ""


def test_the_clock_itself_notes_what_failed() -> None:
    ticking = clock.Clock()

    def work() -> int:
        ticking.stop()
        raise KeyError("lost")

    ticking._repeat(Chore("reap", 0.01, work))
    row = ClockBeat.objects.get(pk="reap")
    assert (row.error, row.clock) == ("KeyError: 'lost'", ticking.name)


async def test_readiness_tells_of_a_silent_clock() -> None:
    with pytest.raises(Unwell, match=r"manage\.py clock") as never:
        await liveness.check_clock()
    assert never.value.facts == {"age": None}
    await in_db(beat)
    assert (await liveness.check_clock())["age"] < 5
    for chore in clock.chores():
        await in_db(lambda name=chore.name: age(ClockBeat.objects.get(pk=name), seconds=40))
    with pytest.raises(Unwell) as silent:
        await liveness.check_clock()
    assert silent.value.facts["age"] >= 40


async def test_readiness_tells_of_a_chore_that_fails() -> None:
    await in_db(beat)
    await on_db(sweep.record_beat)("expire", "h:1", "ValueError: x")
    with pytest.raises(Unwell) as failing:
        await liveness.check_clock()
    assert failing.value.facts["chores"] == ["expire"]


async def test_readiness_names_queues_without_a_worker_and_what_waits_there(make_task: MakeTask) -> None:
    await in_db(present, "high,default,webhooks,quarantine")
    with pytest.raises(Unwell, match="Some queues") as idle:
        await liveness.check_workers()
    assert idle.value.facts["unserved"] == ["low"]
    assert idle.value.facts["workers"]["high"] == 1
    task = await in_db(make_task, queue="low")
    await on_db(age)(task, seconds=61)
    with pytest.raises(Unwell, match="Due work waits") as overdue:
        await liveness.check_workers()
    assert overdue.value.facts["overdue"]["low"] >= 61
    await in_db(present, "low")
    assert (await liveness.check_workers())["workers"]["low"] == 1


async def test_a_worker_that_is_gone_serves_nothing() -> None:
    worker = await in_db(present)
    await on_db(age)(worker, seconds=11)
    with pytest.raises(Unwell) as gone:
        await liveness.check_workers()
    assert gone.value.facts["unserved"] == list(states.QUEUES)


async def test_without_a_worker_the_process_is_degraded_and_stays_in_use() -> None:
    status, reports = await health.run()
    assert status == health.DEGRADED
    assert not reports["workers"]["ok"]
    assert not reports["clock"]["ok"]
    assert reports["postgres"]["ok"]
