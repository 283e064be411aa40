"""Many requests wait for news of tasks, and one query a look tells them all."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from django.db import OperationalError

from apps.tasks import waiters
from apps.tasks.lifecycle.cancel import cancel
from apps.tasks.lifecycle.finish import finish
from apps.tasks.waiters import Glimpse, Waiters
from tests.tasks.conftest import MakeTask, ending, on_db, take

pytestmark = pytest.mark.django_db(transaction=True)
PENDING = Glimpse("pending", 0, 1)


@pytest.fixture
async def looks(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[list[UUID]]]:
    """What each look asked for; it looks often."""
    asked: list[list[UUID]] = []
    glimpse = waiters._glimpse

    def counted(task_ids: list[UUID]) -> dict[UUID, Glimpse]:
        asked.append(task_ids)
        return glimpse(task_ids)

    monkeypatch.setattr(waiters, "_glimpse", counted)
    monkeypatch.setattr(waiters, "LOOK", 0.02)
    yield asked


async def begun(waiting: Waiters, count: int) -> None:
    """Let so many begin to wait."""
    async with asyncio.timeout(5):
        while sum(map(len, waiting._waiting.values())) < count:
            await asyncio.sleep(0)


async def test_all_who_wait_for_a_task_are_told_of_its_end_by_the_looks_of_one(
    make_task: MakeTask, looks: list[list[UUID]]
) -> None:
    ends, stays = await on_db(make_task)(), await on_db(make_task)(queue="low")
    waiting = Waiters()
    many = [asyncio.create_task(waiting.wait_for_end(ends.pk, 10)) for _ in range(200)]
    other = asyncio.create_task(waiting.wait_for_end(stays.pk, 0.5))
    await begun(waiting, 201)
    await on_db(cancel)(ends.pk)
    assert await asyncio.gather(*many) == [True] * 200
    assert await other is False
    assert all(len(asked) == len(set(asked)) <= 2 for asked in looks)
    assert len(looks) < 60


async def test_who_waits_for_an_end_is_not_told_of_what_comes_before(make_task: MakeTask, looks: list[object]) -> None:
    task = await on_db(make_task)()
    waiting = Waiters()
    end = asyncio.create_task(waiting.wait_for_end(task.pk, 10))
    news = asyncio.create_task(waiting.wait_for_news(task.pk, PENDING, 10))
    await begun(waiting, 2)
    claimed = await on_db(take)(task)
    assert await news is True
    assert not end.done()
    await on_db(finish)([ending(claimed)])
    assert await end is True


async def test_a_task_that_has_changed_already_is_told_at_the_first_look(make_task: MakeTask) -> None:
    task = await on_db(make_task)()
    assert await Waiters().wait_for_news(task.pk, Glimpse("running", 1, 1), 5) is True


@pytest.mark.parametrize("known", [True, False])
async def test_waiting_ends_in_time_and_leaves_nothing_behind(
    make_task: MakeTask, looks: list[object], known: bool
) -> None:
    waiting = Waiters()
    task_id = (await on_db(make_task)()).pk if known else uuid4()
    assert await waiting.wait_for_end(task_id, 0.05) is False
    assert not waiting._waiting
    assert waiting._looking is not None
    await asyncio.wait_for(waiting._looking, 5)  # with nobody there it looks no more
    count = len(looks)
    assert await waiting.wait_for_end(task_id, 0.05) is False
    assert len(looks) > count


async def test_who_goes_away_keeps_nobody_else_from_the_news(make_task: MakeTask, looks: list[object]) -> None:
    task = await on_db(make_task)()
    waiting = Waiters()
    gone, stays = (asyncio.create_task(waiting.wait_for_end(task.pk, 10)) for _ in range(2))
    await begun(waiting, 2)
    gone.cancel()
    await asyncio.wait([gone])
    await on_db(cancel)(task.pk)
    assert await stays is True
    assert not waiting._waiting


async def test_an_outage_of_postgres_is_waited_out(
    make_task: MakeTask, looks: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await on_db(make_task)()
    failed = asyncio.Event()
    loop, glimpse = asyncio.get_running_loop(), waiters._glimpse

    def away(task_ids: list[UUID]) -> dict[UUID, Glimpse]:
        loop.call_soon_threadsafe(failed.set)
        raise OperationalError("gone")

    monkeypatch.setattr(waiters, "_glimpse", away)
    waiting = asyncio.create_task(Waiters().wait_for_end(task.pk, 10))
    await asyncio.wait_for(failed.wait(), 5)
    monkeypatch.setattr(waiters, "_glimpse", glimpse)
    await on_db(cancel)(task.pk)
    assert await waiting is True


async def test_a_loop_has_one_of_them() -> None:
    assert waiters.waiters() is waiters.waiters()
