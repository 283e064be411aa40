"""A bulk operation whose clock dies, is doubled or loses Postgres decides each of its letters once all the same."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest

from apps.core import failpoints
from tests.faults.crew import Crew, accept, armed
from tests.faults.nursery import Born
from tests.faults.proxy import Proxy
from tests.faults.stores import Set, Stores
from tests.journeys.conftest import Client
from tests.journeys.wire import eventually
from tests.upstream import Upstream, ok, status

LETTERS = 300
CREATE = """
from apps.dead_letters.bulk import plan
operation = plan.create("redrive", query="state:open")
print(operation.pk)
"""
START = """
import os
from django.db import transaction
from apps.dead_letters.bulk import control, plan
from apps.dead_letters.models import BulkOperation
with transaction.atomic():
    operation = BulkOperation.objects.select_for_update().get()
    if operation.state == "counting":
        assert plan.count(operation)
        BulkOperation.objects.update(state="ready")
control.start(operation.pk, canary=3, rate=float(os.environ["RATE"]), max_in_flight=5000)
BulkOperation.objects.update(release_at="2020-01-01T00:00:00Z")
"""


@contextmanager
def frozen(clock: Born, stores: Stores) -> Iterator[None]:
    """The clock does nothing, and is at no chore that others then could not do."""

    def rests() -> bool:
        clock.send(signal.SIGSTOP)
        if stores.query("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = %s", 0xC10C):
            clock.send(signal.SIGCONT)
            return False
        return True

    assert eventually(rests, within=10, every=0.05)
    try:
        yield
    finally:
        clock.send(signal.SIGCONT)


@pytest.fixture
def dead(crew: Crew, plain: Client, mine: Set, upstream: Upstream) -> list[UUID]:
    """Tasks that an upstream has refused, with a worker beside that would do them now."""
    upstream.script(mine.model, status(400, {"error": {"message": "It is too hot.", "code": "hot"}}))
    tasks = accept(plain, mine.model, LETTERS)
    crew.worker()
    crew.until(tasks, "dead", within=60)
    upstream.script(mine.model, ok())
    return tasks


def started(stores: Stores, rate: float) -> UUID:
    """An operation on all open letters whose hold is over."""
    return UUID(stores.manage("shell", "-v0", "-c", CREATE + START, RATE=str(rate)).split()[-1])


def standing(stores: Stores, operation: UUID) -> tuple[str, int, int]:
    """Its state, how many it has released, and how many of these have succeeded."""
    [row] = stores.query("SELECT state, released, succeeded FROM dead_letters_bulkoperation WHERE id = %s", operation)
    return row[0], row[1], row[2]


def audited(stores: Stores, tasks: list[UUID]) -> list[tuple[int, str]]:
    """(how many entries there are, of which action), per letter."""
    return stores.query(
        """
        SELECT count(*), max(a.action) FROM dead_letters_deadletter l
        LEFT JOIN access_auditentry a ON a.object_id = l.id::text AND a.object_type = 'dead_letters.deadletter'
        WHERE l.task_id = ANY(%s) GROUP BY l.id
        """,
        tasks,
    )  # type: ignore[return-value]


def assert_each_was_decided_once(stores: Stores, crew: Crew, operation: UUID, tasks: list[UUID]) -> None:
    done = ("done", LETTERS, LETTERS)
    assert eventually(lambda: standing(stores, operation) == done, within=40), standing(stores, operation)
    assert crew.states(tasks) == {"succeeded": LETTERS}
    assert audited(stores, tasks) == [(1, "redrive")] * LETTERS
    rows = stores.query("SELECT DISTINCT cycle, attempt FROM tasks_task WHERE id = ANY(%s)", tasks)
    assert rows == [(2, 2)]
    items = stores.query(
        "SELECT state, outcome, count(*) FROM dead_letters_bulkitem WHERE operation_id = %s GROUP BY 1, 2", operation
    )
    assert items == [("released", "succeeded", LETTERS)]


def test_a_clock_that_is_killed_half_way_leaves_the_rest_to_the_next(
    crew: Crew, stores: Stores, clock: Born, mine: Set, upstream: Upstream, dead: list[UUID]
) -> None:
    with frozen(clock, stores):
        operation = started(stores, rate=100)
        for point in ("bulk.after_release", "redrive.before_revive"):  # at the canaries
            assert crew.clock(**armed(f"{point}:exit")).end(None) == failpoints.EXIT_CODE
            assert standing(stores, operation) == ("holding", 0, 0)
        killed = crew.clock()
        assert eventually(lambda: standing(stores, operation)[1] > 60, within=30)
        killed.end(signal.SIGKILL)
        for point in ("bulk.after_release", "redrive.before_revive"):
            state, released, _ = standing(stores, operation)
            assert (state, 60 < released < LETTERS) == ("running", True)
            assert crew.clock(**armed(f"{point}:exit")).end(None) == failpoints.EXIT_CODE
            assert standing(stores, operation)[1] == released
    assert_each_was_decided_once(stores, crew, operation, dead)
    assert len(upstream.requests(mine.model)) == 1 + 2 * LETTERS  # one by the client, before


def test_two_clocks_release_each_letter_once(
    crew: Crew, stores: Stores, clock: Born, mine: Set, upstream: Upstream, dead: list[UUID]
) -> None:
    clocks = [clock, crew.clock(), crew.clock()]
    operation = started(stores, rate=300)
    assert_each_was_decided_once(stores, crew, operation, dead)
    assert len(upstream.requests(mine.model)) == 1 + 2 * LETTERS  # one by the client, before
    assert all(one.lives for one in clocks)


def test_a_clock_that_is_killed_while_it_counts_leaves_no_letter_out_and_none_twice(
    crew: Crew, stores: Stores, clock: Born, dead: list[UUID]
) -> None:
    with frozen(clock, stores):
        operation = UUID(stores.manage("shell", "-v0", "-c", CREATE).split()[-1])
        for _ in range(2):
            assert crew.clock(**armed("bulk.after_freeze:exit")).end(None) == failpoints.EXIT_CODE
            assert stores.query("SELECT count(*) FROM dead_letters_bulkitem") == [(0,)]
            assert standing(stores, operation)[0] == "counting"
    assert eventually(lambda: standing(stores, operation)[0] == "ready", within=15)
    counted = "SELECT total, skipped, (SELECT count(*) FROM dead_letters_bulkitem) FROM dead_letters_bulkoperation"
    assert stores.query(counted) == [(LETTERS, 0, LETTERS)]
    stores.manage("shell", "-v0", "-c", START, RATE="1000")
    assert_each_was_decided_once(stores, crew, operation, dead)


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_a_release_whose_commit_is_cut_is_made_once(
    crew: Crew, stores: Stores, clock: Born, dead: list[UUID], lost: str
) -> None:
    proxy = Proxy(stores.run.database_url).start()
    with frozen(clock, stores):
        operation = started(stores, rate=200)
        proxy.cut_commits(lost, marker=b"cycle = t.cycle + 1", count=3)  # type: ignore[arg-type]
        through = crew.clock(REDRIVE_DATABASE_URL=proxy.url)
        assert_each_was_decided_once(stores, crew, operation, dead)
        assert proxy.made == 3
        assert "clock_waits_for_database" in through.log.read_text()
