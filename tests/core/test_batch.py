"""Group commit: what waits is written together; nothing is lost, nothing is written twice, one bad item is alone."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.db import OperationalError

from apps.core.database import MAX_BYTES, Batch
from tests.races import together

pytestmark = pytest.mark.django_db(transaction=True)


class Store:
    """Keeps what was written, write by write; fails as it is told."""

    def __init__(self) -> None:
        self.writes: list[list[Any]] = []
        self.fails: Callable[[list[Any]], Exception | None] = lambda _: None
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()

    def __call__(self, items: list[Any]) -> list[Any]:
        self.begun.set()
        assert self.gate.wait(10)
        if (error := self.fails(items)) is not None:
            raise error
        self.writes.append(list(items))
        return [f"wrote {item}" for item in items]

    @property
    def written(self) -> list[Any]:
        return [item for items in self.writes for item in items]


@pytest.fixture
def store() -> Iterator[Store]:
    """One whose gate is open when the test ends, so that no writer hangs."""
    store = Store()
    yield store
    store.fails = lambda _: None
    store.gate.set()


class Cancelled(psycopg.errors.QueryCanceled):
    """As the driver tells of a statement that took too long."""

    sqlstate = "57014"


def too_long() -> OperationalError:
    """A statement timeout, as Django raises it."""
    error = OperationalError("canceling statement due to statement timeout")
    error.__cause__ = Cancelled("canceling statement due to statement timeout")
    return error


async def test_a_write_that_takes_too_long_is_halved_and_what_is_behind_it_gets_through(store: Store) -> None:
    refused: list[int] = []
    store.fails = lambda items: too_long() if len(items) > 3 or 7 in items else None
    batch: Batch[int, str] = Batch(store, name="t", poisoned=lambda item, _: refused.append(item))
    store.gate.clear()
    waiting = [batch.submit(item) for item in range(20)]
    store.gate.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [item for item, result in enumerate(results) if isinstance(result, Exception)] == refused == [7]
    assert sorted(store.written) == [item for item in range(20) if item != 7]


async def test_who_waits_too_long_is_told_and_the_item_is_written_all_the_same(store: Store) -> None:
    batch: Batch[int, str] = Batch(store, name="t", patience=0.1)
    store.gate.clear()
    waiting = [batch.submit(item) for item in range(3)]
    assert [type(one) for one in await asyncio.gather(*waiting, return_exceptions=True)] == [TimeoutError] * 3
    store.gate.set()
    assert await batch.submit(3) == "wrote 3"
    assert store.written == [0, 1, 2, 3]


async def test_a_caller_that_leaves_takes_no_item_back(store: Store) -> None:
    batch: Batch[int, str] = Batch(store, name="t")
    store.gate.clear()
    waiting = asyncio.ensure_future(asyncio.wait_for(batch.submit(0), 0.05))
    with pytest.raises(TimeoutError):
        await waiting
    store.gate.set()
    assert await batch.submit(1) == "wrote 1"
    assert store.written == [0, 1]


async def test_a_write_is_bounded_by_the_size_of_its_items(store: Store) -> None:
    batch: Batch[int, str] = Batch(store, name="t", size=lambda _: MAX_BYTES // 4)
    store.gate.clear()
    waiting = [batch.submit(item) for item in range(20)]
    store.gate.set()
    await asyncio.gather(*waiting)
    assert max(len(items) for items in store.writes) == 4
    assert store.written == list(range(20))


async def test_each_item_gets_its_own_result() -> None:
    batch: Batch[int, str] = Batch(lambda items: [f"{item}!" for item in items], name="t")
    assert await asyncio.gather(*(batch.submit(item) for item in range(100))) == [f"{item}!" for item in range(100)]


async def test_what_waits_is_written_in_one_call(store: Store) -> None:
    batch: Batch[int, str] = Batch(store, name="t")
    store.gate.clear()
    first = batch.submit(0)
    await asyncio.to_thread(store.begun.wait, 5)
    rest = [batch.submit(item) for item in range(1, 101)]
    store.gate.set()
    await asyncio.gather(first, *rest)
    assert store.writes == [[0], list(range(1, 101))]


async def test_items_gather_while_the_writer_lingers(store: Store) -> None:
    batch: Batch[int, str] = Batch(store, name="t", linger=0.1)
    for item in range(5):
        batch.append(item)
        await asyncio.sleep(0.005)
    assert await asyncio.to_thread(batch.flush, 5)
    assert store.writes == [[0, 1, 2, 3, 4]]


async def test_a_call_gets_so_many_items_and_no_more(store: Store) -> None:
    batch: Batch[int, str] = Batch(store, name="t", max_items=10)
    await asyncio.gather(*(batch.submit(item) for item in range(35)))
    assert max(map(len, store.writes)) <= 10
    assert store.written == list(range(35))


async def test_one_poisoned_item_does_not_cost_the_other_ninety_nine(store: Store) -> None:
    told: list[tuple[int, Exception]] = []
    store.fails = lambda items: ValueError("bad row") if 37 in items else None
    batch: Batch[int, str] = Batch(
        store, name="t", linger=0.02, poisoned=lambda item, error: told.append((item, error))
    )
    futures = [batch.submit(item) for item in range(100)]
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert sorted(store.written) == [item for item in range(100) if item != 37]
    assert [(item, type(error)) for item, error in told] == [(37, ValueError)]
    assert isinstance(results[37], ValueError)
    assert [result for item, result in enumerate(results) if item != 37] == [
        f"wrote {item}" for item in range(100) if item != 37
    ]


async def test_a_lost_connection_keeps_the_items_until_it_is_back(store: Store) -> None:
    tries: list[int] = []

    def twice(items: list[Any]) -> Exception | None:
        tries.append(len(items))
        return OperationalError("gone") if len(tries) <= 2 else None

    store.fails = twice
    batch: Batch[int, str] = Batch(store, name="t")
    results = await asyncio.gather(*(batch.submit(item) for item in range(10)))
    assert results == [f"wrote {item}" for item in range(10)]
    assert sorted(store.written) == list(range(10))


async def test_a_connection_lost_while_a_batch_is_halved_writes_nothing_twice(store: Store) -> None:
    lost: list[int] = []

    def once(items: list[Any]) -> Exception | None:
        if 0 in items and len(items) > 4:
            return ValueError("halve it")
        if 7 in items and not lost:
            lost.append(1)
            return OperationalError("gone")
        return None

    store.fails = once
    batch: Batch[int, str] = Batch(store, name="t", linger=0.02)
    await asyncio.gather(*(batch.submit(item) for item in range(8)))
    assert sorted(store.written) == list(range(8))


async def test_a_batch_is_full_when_its_backlog_waits(store: Store) -> None:
    batch: Batch[int, str] = Batch(store, name="t", backlog=3)
    store.gate.clear()
    for item in range(3):
        assert not batch.is_full()
        batch.append(item)
    await asyncio.to_thread(store.begun.wait, 5)
    assert batch.is_full()
    assert len(batch) == 3
    store.gate.set()
    assert await asyncio.to_thread(batch.flush, 5)
    assert not batch.is_full()


async def test_a_flush_waits_for_what_is_being_written(store: Store) -> None:
    batch: Batch[int, str] = Batch(store, name="t", linger=5)
    assert batch.flush(0)
    store.gate.clear()
    batch.append(1)
    assert not await asyncio.to_thread(batch.flush, 0.1)
    store.gate.set()


async def test_a_flush_does_not_wait_out_the_linger(store: Store) -> None:
    batch: Batch[int, str] = Batch(store, name="t", linger=0.05)
    for item in range(3):
        batch.append(item)
    assert await asyncio.to_thread(batch.flush, 2)
    assert store.written == [0, 1, 2]


def test_items_from_many_threads_are_each_written_once(store: Store) -> None:
    batch: Batch[int, str] = Batch(store, name="t", max_items=50)

    def append(thread: int) -> None:
        for number in range(200):
            batch.append(thread * 1000 + number)

    together(8, append)
    assert batch.flush(10)
    assert sorted(store.written) == sorted(thread * 1000 + number for thread in range(8) for number in range(200))
    for thread in range(8):
        mine = [item for item in store.written if item // 1000 == thread]
        assert mine == sorted(mine)


def test_items_from_many_loops_get_their_results_in_their_own_loop(store: Store) -> None:
    batch: Batch[int, str] = Batch(store, name="t")

    def loop(thread: int) -> list[str]:
        async def submit() -> list[str]:
            return await asyncio.gather(*(batch.submit(thread * 1000 + number) for number in range(50)))

        return asyncio.run(submit())

    results = together(6, loop)
    assert results == [[f"wrote {thread * 1000 + number}" for number in range(50)] for thread in range(6)]


def test_a_loop_that_has_closed_does_not_stop_the_writer(store: Store) -> None:
    batch: Batch[int, str] = Batch(store, name="t")
    store.gate.clear()

    async def leave() -> None:
        batch.submit(1)
        await asyncio.to_thread(store.begun.wait, 5)

    asyncio.run(leave())
    store.gate.set()
    assert batch.flush(5)
    batch.append(2)
    assert batch.flush(5)
    assert store.written == [1, 2]


async def test_a_caller_that_leaves_does_not_take_its_item_along(store: Store) -> None:
    batch: Batch[int, str] = Batch(store, name="t", linger=0.05)
    batch.submit(1).cancel()
    other = batch.submit(2)
    assert await other == "wrote 2"
    assert store.written == [1, 2]
