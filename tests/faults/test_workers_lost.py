"""Workers killed, frozen and stopped while they work: every task ends once, what was paid for is kept."""

import signal
import time

import pytest

from apps.core import failpoints
from tests.faults.conftest import Serve
from tests.faults.crew import TTL, Crew, accept, armed
from tests.faults.stores import Set, Stores
from tests.journeys.conftest import Client
from tests.journeys.scripts import Hold
from tests.journeys.wire import eventually
from tests.upstream import Upstream, ok

ROOM = 3.0  # times what is promised, on a busy machine


def test_the_task_of_a_worker_that_was_killed_begins_again_soon(
    crew: Crew, plain: Client, mine: Set, upstream: Upstream
) -> None:
    hold = Hold()
    upstream.script(mine.model, hold.reply("first"), ok("second"))
    victim = crew.worker()
    [task] = accept(plain, mine.model)
    assert eventually(lambda: hold.waiting, within=10)
    crew.worker()
    victim.end(signal.SIGKILL)
    killed = time.monotonic()
    crew.until([task], "retrying", "running", "succeeded")
    assert eventually(lambda: crew.outcomes(task) == ["worker_lost"], within=10)
    assert time.monotonic() - killed < TTL * ROOM
    hold.release.set()
    assert crew.until([task], "succeeded")[task] == ("succeeded", 2, 1, 0)
    assert crew.outcomes(task) == ["worker_lost", "succeeded"]


@pytest.mark.parametrize("point", ["claim.after_commit", "finish.before_commit", "finish.after_commit"])
def test_a_worker_may_die_at_any_point(crew: Crew, plain: Client, mine: Set, point: str) -> None:
    tasks = accept(plain, mine.model, 5)
    victim = crew.worker(ready=False, **armed(f"{point}:exit"))
    assert victim.end(None) == failpoints.EXIT_CODE
    crew.worker()
    rows = crew.until(tasks, "succeeded")
    assert max(row[2] for row in rows.values()) <= 1


def test_gateway_worker_and_clock_killed_together_under_load_lose_nothing(
    crew: Crew, stores: Stores, serve: Serve, mine: Set
) -> None:
    gateway = serve()
    worker, clock = crew.worker(), crew.clock()
    tasks = accept(Client(gateway.url, mine.plain), mine.model, 60)
    for process in (worker, clock):
        process.end(signal.SIGKILL)
    gateway.stop(signal.SIGKILL)
    crew.worker()
    crew.until(tasks, "succeeded")
    assert len(tasks) == 60


def test_a_worker_that_was_frozen_beyond_its_lease_is_refused_and_its_cost_kept(
    crew: Crew, stores: Stores, plain: Client, mine: Set, upstream: Upstream
) -> None:
    hold = Hold()
    assert eventually(lambda: stores.rows(mine.model) == ["succeeded"], within=5)  # of `plain`
    upstream.script(mine.model, hold.reply("late"), ok("timely"))
    zombie = crew.worker()
    [task] = accept(plain, mine.model)
    assert eventually(lambda: hold.waiting, within=10)
    zombie.send(signal.SIGSTOP)
    crew.worker()
    assert crew.until([task], "succeeded")[task] == ("succeeded", 2, 1, 0)
    hold.release.set()
    zombie.send(signal.SIGCONT)
    # The reaper's estimate, the timely answer, and what the late one turned out to have spent: it changed but the bill.
    assert eventually(lambda: len(stores.rows(mine.model)) == 1 + 3, within=10), stores.rows(mine.model)
    assert crew.outcomes(task) == ["worker_lost", "succeeded"]
    [(body,)] = stores.query("SELECT body FROM tasks_taskresult WHERE task_id = %s", task)
    assert "timely" in body
    assert eventually(lambda: crew.is_present(zombie), within=10), zombie.log.read_text()


@pytest.mark.parametrize("done", [0, 5, 25])
def test_a_worker_that_is_told_to_stop_hands_the_rest_to_the_others(
    crew: Crew, plain: Client, mine: Set, upstream: Upstream, done: int
) -> None:
    hold = Hold()
    upstream.script(mine.model, *[ok()] * max(done, 1), hold.reply())
    first = crew.worker("--slots", "10")
    tasks = accept(plain, mine.model, 30)
    assert eventually(lambda: crew.states(tasks)["succeeded"] >= done, within=10)
    assert first.end() == 0
    upstream.script(mine.model, ok())
    hold.release.set()
    crew.worker()
    rows = crew.until(tasks, "succeeded")
    assert {row[2:] for row in rows.values()} == {(0, 0)}  # nobody's loss, nobody's fault


def test_a_worker_keeps_its_tasks_when_the_connection_of_its_sign_of_life_is_cut(
    crew: Crew, stores: Stores, plain: Client, mine: Set, upstream: Upstream
) -> None:
    hold = Hold()
    upstream.script(mine.model, hold.reply())
    worker = crew.worker(REDRIVE_WORKER_TTL="10")  # it renews each two seconds
    [task] = accept(plain, mine.model)
    assert eventually(lambda: hold.waiting, within=10)
    beat = "SELECT beat_at FROM tasks_workerpresence WHERE pid = %s"
    before = stores.query(beat, worker.pid)
    assert eventually(lambda: stores.query(beat, worker.pid) != before, within=5)
    assert stores.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'redrive-presence'"
    )
    assert not eventually(lambda: crew.rows([task])[task] != ("running", 1, 0, 0), within=2.0)
    hold.release.set()
    assert crew.until([task], "succeeded")[task] == ("succeeded", 1, 0, 0)


def test_a_task_whose_worker_has_died_can_be_cancelled(
    crew: Crew, plain: Client, mine: Set, upstream: Upstream
) -> None:
    hold = Hold()
    upstream.script(mine.model, hold.reply())
    worker = crew.worker()
    [task] = accept(plain, mine.model)
    assert eventually(lambda: hold.waiting, within=10)
    worker.end(signal.SIGKILL)
    assert plain.call("DELETE", f"/v1/tasks/task_{task.hex}").status == 202
    assert crew.until([task], "cancelled")[task][:2] == ("cancelled", 1)
    hold.release.set()
