"""The clock: two of them do each thing once, one that dies in the middle of a chore leaves nothing half done."""

import signal

from apps.core import failpoints
from tests.faults.conftest import Serve
from tests.faults.crew import TTL, Crew, accept, armed
from tests.faults.nursery import Born
from tests.faults.stores import Set, Stores
from tests.journeys.conftest import Client
from tests.journeys.scripts import Hold
from tests.journeys.wire import eventually
from tests.upstream import Upstream, ok


def test_three_clocks_take_each_attempt_of_a_lost_worker_once(
    crew: Crew, plain: Client, mine: Set, upstream: Upstream
) -> None:
    hold = Hold()
    upstream.script(mine.model, hold.reply())
    worker = crew.worker()
    clocks = [crew.clock(), crew.clock()]
    tasks = accept(plain, mine.model, 30)
    assert eventually(lambda: hold.waiting == 30, within=10)
    worker.end(signal.SIGKILL)
    rows = crew.until(tasks, "retrying")
    assert {row[1:3] for row in rows.values()} == {(1, 1)}
    upstream.script(mine.model, ok())
    hold.release.set()
    crew.worker()
    assert {row[2] for row in crew.until(tasks, "succeeded").values()} == {1}
    assert all(clock.lives for clock in clocks)


def test_a_clock_killed_in_the_middle_of_reaping_leaves_nothing_half_done(
    crew: Crew, stores: Stores, clock: Born, plain: Client, mine: Set, upstream: Upstream
) -> None:
    hold = Hold()
    upstream.script(mine.model, hold.reply(), hold.reply(), hold.reply(), ok())
    clock.send(signal.SIGSTOP)
    try:
        doomed = crew.clock(**armed("reap.midway:exit"))
        worker = crew.worker()
        tasks = accept(plain, mine.model, 3)
        assert eventually(lambda: hold.waiting == 3, within=10)
        worker.end(signal.SIGKILL)
        assert doomed.end(None) == failpoints.EXIT_CODE
        assert set(crew.rows(tasks).values()) == {("running", 1, 0, 0)}
    finally:
        clock.send(signal.SIGCONT)
    hold.release.set()
    crew.worker()
    assert {row[1:3] for row in crew.until(tasks, "succeeded").values()} == {(2, 1)}


def test_a_clock_comes_back_with_postgres(crew: Crew, stores: Stores, clock: Born) -> None:
    quick = "SELECT count(*) FROM tasks_clockbeat WHERE chore IN ('expire', 'reap', 'ring')"
    assert eventually(lambda: stores.query(quick) == [(3,)], within=20), clock.log.read_text()
    with stores.postgres.stopped():
        pass
    fresh = f"{quick} AND beat_at > pg_postmaster_start_time()"
    assert eventually(lambda: stores.query(fresh) == [(3,)], within=15), clock.log.read_text()


def test_a_letter_that_cannot_be_written_leaves_the_task_to_the_next_try(
    crew: Crew, stores: Stores, clock: Born, serve: Serve, plain: Client, mine: Set
) -> None:
    [task] = accept(plain, mine.model)
    clock.send(signal.SIGSTOP)
    try:
        failing = crew.clock(**armed("intake.before_letters:raise*2"))
        stores.query("UPDATE tasks_task SET deadline = now() - interval '1 s' WHERE id = %s", task)
        crew.until([task], "dead", within=5 * TTL)
    finally:
        clock.send(signal.SIGCONT)
    assert failing.log.read_text().count("chore_failed") == 2
    assert len(stores.query("SELECT 1 FROM dead_letters_deadletter WHERE task_id = %s", task)) == 1
