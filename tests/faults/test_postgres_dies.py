"""Postgres dies or freezes under running tasks: answers that were paid for are kept, and nothing runs twice for it."""

import time

from tests.faults.crew import TTL, Crew, accept
from tests.faults.stores import Set, Stores
from tests.journeys.conftest import Client
from tests.journeys.scripts import Hold
from tests.journeys.wire import eventually
from tests.time import stay
from tests.upstream import Upstream


def begun(crew: Crew, client: Client, mine: Set, upstream: Upstream, hold: Hold, count: int = 20) -> list[object]:
    """So many tasks, all of which wait for their upstream."""
    upstream.script(mine.model, hold.reply())
    tasks = accept(client, mine.model, count)
    assert eventually(lambda: hold.waiting == count, within=10)
    return list(tasks)


def test_answers_that_come_while_postgres_is_killed_and_away_are_kept(
    crew: Crew, stores: Stores, plain: Client, mine: Set, upstream: Upstream
) -> None:
    hold, before = Hold(), len(upstream.requests(mine.model))
    worker = crew.worker()
    tasks = begun(crew, plain, mine, upstream, hold)
    with stores.postgres.stopped():  # -m immediate
        hold.release.set()
        assert eventually(lambda: "batch_waits_for_database" in worker.log.read_text(), within=10)
    rows = crew.until(tasks, "succeeded", within=30)
    assert set(rows.values()) == {("succeeded", 1, 0, 0)}
    assert len(upstream.requests(mine.model)) - before == 20
    assert worker.lives
    more = accept(plain, mine.model, 5)
    crew.until(more, "succeeded")


def test_tasks_that_run_while_postgres_restarts_stay_with_their_worker(
    crew: Crew, stores: Stores, plain: Client, mine: Set, upstream: Upstream
) -> None:
    hold = Hold()
    crew.worker()
    tasks = begun(crew, plain, mine, upstream, hold)
    with stores.postgres.stopped():
        pass
    # Longer than a lease that nobody renewed would have lasted.
    assert not eventually(lambda: any(row[2] for row in crew.rows(tasks).values()), within=2 * TTL + 1, every=0.2)
    hold.release.set()
    assert set(crew.until(tasks, "succeeded").values()) == {("succeeded", 1, 0, 0)}


def test_a_frozen_postgres_that_thaws_costs_no_worker_its_tasks(
    crew: Crew, stores: Stores, plain: Client, mine: Set, upstream: Upstream
) -> None:
    hold = Hold()
    worker = crew.worker()
    tasks = begun(crew, plain, mine, upstream, hold)
    with stores.postgres.frozen():
        stay(2 * TTL)
        hold.release.set()
    rows = crew.until(tasks, "succeeded")
    assert set(rows.values()) == {("succeeded", 1, 0, 0)}, worker.log.read_text()


def test_what_becomes_due_while_postgres_is_frozen_is_done_when_it_thaws(
    crew: Crew, stores: Stores, plain: Client, mine: Set
) -> None:
    crew.worker()
    tasks = accept(plain, mine.model, 20)
    with stores.postgres.frozen():
        stay(2 * TTL)
    began = time.monotonic()
    rows = crew.until(tasks, "succeeded")
    assert {row[2] for row in rows.values()} == {0}
    # A claim that nobody waited for any more would have to be handed back first.
    assert time.monotonic() - began < 2 * TTL
