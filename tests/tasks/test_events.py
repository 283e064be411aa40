"""A follower of a task sees each of its events once, in order, also over a dropped connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from redis import Redis

from apps.core.errors import InvalidRequest
from apps.tasks import events
from apps.tasks.attempt import Run
from apps.tasks.errors import TaskNotFound
from apps.tasks.events import ENDED, Event, follow
from apps.tasks.executor import Executor
from apps.tasks.kinds import Policy
from apps.tasks.lifecycle.cancel import cancel
from apps.tasks.lifecycle.expire import expire
from apps.tasks.lifecycle.finish import finish
from apps.tasks.lifecycle.revive import revive
from apps.tasks.models import Task
from tests.stores import point_redis_at, valkey
from tests.tasks.conftest import Anything, MakeKind, MakeTask, ending, on_db, take
from tests.time import age

__all__ = ["point_redis_at", "valkey"]


async def seen(task: Task, after: str = "", most: int = 1000, within: float = 10) -> list[Event]:
    """The events after one, until the task has ended or there are so many."""
    found: list[Event] = []
    async with (
        asyncio.timeout(within),
        contextlib.aclosing(follow(task.project_id, task.pk, starting_after=after)) as e,
    ):
        async for event in e:
            found.append(event)
            if len(found) == most:
                break
    return found


def shape(found: list[Event]) -> list[tuple[str, Any]]:
    """What matters of each: its id, and its state, text or progress."""
    return [
        (event.id, event.data.get("status") or event.data.get("text") or event.data["progress"]["current"])
        for event in found
    ]


async def test_states_progress_and_text_come_in_order_and_the_last_event_holds_the_task(
    worker: Executor, make_kind: MakeKind, make_task: MakeTask, valkey: Redis
) -> None:
    async def handle(run: Run, args: Anything) -> dict[str, Any]:
        run.text("hel")
        run.progress(1, 2, "half")
        run.text("lo")
        return {"done": True}

    task = await on_db(make_task)(make_kind(handle))
    found = await seen(task)
    assert shape(found) == [
        ("0.0", "pending"), ("1.0", "running"), ("1.1", "hel"), ("1.2", 1), ("1.3", "lo"), (f"1.{ENDED}", "succeeded"),
    ]  # fmt: skip
    assert [event.type for event in found[2:4]] == ["task.text", "task.progress"]
    assert found[-1].data["task"]["result"] == {"done": True}
    assert found[-1].data["task"]["progress"] == {"current": 1, "total": 2, "status": "half"}
    for number in range(len(found)):
        assert shape(await seen(task, after=found[number].id)) == shape(found)[number + 1 :]


async def test_a_follower_that_comes_back_misses_nothing_and_sees_nothing_twice(
    worker: Executor, make_kind: MakeKind, make_task: MakeTask, valkey: Redis
) -> None:
    read, gates = [], [asyncio.Event() for _ in range(20)]

    async def handle(run: Run, args: Anything) -> dict[str, Any]:
        for number, gate in enumerate(gates):
            run.text(f"{number};")
            await gate.wait()
        return {}

    task = await on_db(make_task)(make_kind(handle))
    after = ""
    for gate in gates:
        for event in await seen(task, after=after, most=1 if read else 3):
            read.append(event)
            after = event.id
        gate.set()
    read += await seen(task, after=after)
    texts = "".join(event.data.get("text", "") for event in read)
    assert texts == "".join(f"{number};" for number in range(20))
    assert len({event.id for event in read}) == len(read)
    assert read[-1].data["status"] == "succeeded"


async def test_a_failed_attempt_shows_its_error_and_the_next_one_starts_its_text_anew(
    worker: Executor, make_kind: MakeKind, make_task: MakeTask, valkey: Redis
) -> None:
    async def handle(run: Run, args: Anything) -> dict[str, Any]:
        run.text(f"try {run.task.attempt}")
        if run.task.attempt == 1:
            raise ValueError("secret words")
        return {}

    task = await on_db(make_task)(make_kind(handle, policy=Policy(base=0)))
    found = await seen(task)
    assert shape(found) == [
        ("0.0", "pending"), ("1.0", "running"), ("1.1", "try 1"), (f"1.{ENDED}", "retrying"),
        ("2.0", "running"), ("2.1", "try 2"), (f"2.{ENDED}", "succeeded"),
    ]  # fmt: skip
    error = found[3].data["error"]
    assert (error["code"], error["message"]) == ("internal_error", "ValueError")


async def test_without_redis_the_states_still_flow(worker: Executor, make_task: MakeTask, point_redis_at: Any) -> None:
    point_redis_at("redis://127.0.0.1:1/0")
    task = await on_db(make_task)()
    assert [event.data["status"] for event in await seen(task)] == ["pending", "running", "succeeded"]


@pytest.fixture
def dead_twice(transactional_db: None, make_task: MakeTask) -> Task:
    """A task that died, was redriven, failed, and then was too late."""
    task = make_task(deadline=100.0)
    finish([ending(take(task), "dead", "failed")])
    assert revive([task.pk])
    finish([ending(take(task), "retrying", "failed", delay=0.0)])
    age(task, hours=1)
    assert expire() == 1
    return task


async def test_a_task_that_lived_twice_is_told_to_its_last_end(dead_twice: Task) -> None:
    assert shape(await seen(dead_twice)) == [
        ("0.0", "pending"), ("1.0", "running"), (f"1.{ENDED}", "dead"),
        ("2.0", "running"), (f"2.{ENDED}", "retrying"), (f"2.{ENDED + 1}", "dead"),
    ]  # fmt: skip
    assert await events.is_over(dead_twice.project_id, dead_twice.pk, starting_after=f"2.{ENDED + 1}")
    assert not await events.is_over(dead_twice.project_id, dead_twice.pk, starting_after=f"2.{ENDED}")


async def test_a_task_cancelled_before_its_first_attempt_is_told(transactional_db: None, make_task: MakeTask) -> None:
    task = await on_db(make_task)()
    await on_db(cancel)(task.pk)
    assert shape(await seen(task)) == [("0.0", "pending"), (f"0.{ENDED + 1}", "cancelled")]


async def test_a_follower_hears_of_a_cancel_while_it_waits(transactional_db: None, make_task: MakeTask) -> None:
    task = await on_db(make_task)()

    async def read() -> AsyncIterator[str]:
        async for event in follow(task.project_id, task.pk):
            yield event.data["status"]

    told = read()
    assert await anext(told) == "pending"
    await on_db(cancel)(task.pk)
    async with asyncio.timeout(5):
        assert await anext(told) == "cancelled"


@pytest.mark.parametrize("after", ["x", "1", "1.", "-1.0", "1.0 ", "1.0.0", "٣.0", "9999999999.0"])
async def test_an_id_that_is_none_is_refused(after: str, transactional_db: None, make_task: MakeTask) -> None:
    task = await on_db(make_task)()
    with pytest.raises(InvalidRequest) as raised:
        await seen(task, after=after)
    assert raised.value.param == "starting_after"


async def test_the_tasks_of_others_are_not_there(transactional_db: None, make_task: MakeTask) -> None:
    task = await on_db(make_task)()
    for project_id, task_id in ((uuid4(), task.pk), (task.project_id, uuid4())):
        with pytest.raises(TaskNotFound):
            await anext(follow(project_id, task_id))


def test_places_are_ordered_as_the_events_come() -> None:
    ids = ["", "0.0", f"0.{ENDED + 1}", "1.0", "1.1", "1.10", f"1.{ENDED}", f"1.{ENDED + 1}", "2.0", "10.0"]
    places = [events.place_of(text) for text in ids]
    assert places == sorted(places)
