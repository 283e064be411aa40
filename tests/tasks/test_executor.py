"""A worker runs what is due, and what goes wrong with one task is no trouble of the others."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.core import errors
from apps.tasks.attempt import Run
from apps.tasks.executor import Executor, _deal
from apps.tasks.kinds import Policy
from apps.tasks.lifecycle.cancel import cancel
from apps.tasks.models import Task, TaskAttempt, TaskResult, WorkerPresence
from apps.tasks.signals import tasks_finished
from tests.tasks.conftest import Anything, Gate, MakeKind, MakeTask, on_db, until

pytestmark = pytest.mark.django_db(transaction=True)
FINAL = ("succeeded", "dead", "cancelled")


def attempts(task: Task) -> list[TaskAttempt]:
    return list(TaskAttempt.objects.filter(task_id=task.pk).order_by("number"))


def raising(*problems: Exception | None) -> Any:
    """A handler that raises these one after the other; None: it succeeds."""
    left = list(problems)

    async def handle(run: Run, args: Anything) -> dict[str, Any]:
        problem = left.pop(0) if left else None
        if problem is not None:
            raise problem.with_traceback(None)
        return {"attempt": run.task.attempt}

    return handle


QUICK = Policy(base=0.01, cap=0.02)


async def test_what_was_accepted_is_done(worker: Executor, make_task: MakeTask) -> None:
    task = await on_db(make_task)(args={"a": [1, "\x00\ud800"]})
    found = await until(task, *FINAL)
    result = await on_db(TaskResult.objects.get)(pk=task.pk)
    assert (found.state, result.body) == ("succeeded", '{"a":[1,"\\u0000\\ud800"]}')


async def test_a_ring_is_answered_at_once(worker: Executor, make_task: MakeTask) -> None:
    await asyncio.to_thread(worker.presence.registered.wait, 10)
    took = []
    for _ in range(5):
        task = await on_db(make_task)()
        began = time.monotonic()
        worker.wake(["default"])
        await until(task, "succeeded")
        took.append(time.monotonic() - began)
    assert sorted(took)[2] < 0.4  # without the ring half a second, and up to a whole one


async def test_a_transient_failure_is_tried_again(worker: Executor, make_task: MakeTask, make_kind: MakeKind) -> None:
    kind = make_kind(raising(errors.UpstreamError(), errors.UpstreamError(), None), policy=QUICK)
    task = await on_db(make_task)(kind)
    found = await until(task, *FINAL)
    assert (found.state, found.attempt, found.charged_failures) == ("succeeded", 3, 2)
    outcomes = [one.outcome for one in await on_db(attempts)(task)]
    assert outcomes == ["failed", "failed", "succeeded"]


@pytest.mark.parametrize(
    ("problem", "tries", "code"),
    [
        (errors.UpstreamError("gone"), 4, "model_error"),
        (errors.InvalidRequest("no"), 1, "validation_error"),
        (errors.ModelNotFound(), 1, "model_not_found"),
        (ZeroDivisionError("secret words"), 2, "internal_error"),
    ],
)
async def test_a_task_dies_when_its_policy_is_used_up(
    worker: Executor, make_task: MakeTask, make_kind: MakeKind, problem: Exception, tries: int, code: str
) -> None:
    task = await on_db(make_task)(make_kind(raising(*[problem] * 9), policy=QUICK))
    found = await until(task, *FINAL)
    assert (found.state, found.attempt) == ("dead", tries)
    tried = await on_db(attempts)(task)
    assert [one.error_code for one in tried] == [code] * tries
    assert len({one.fingerprint for one in tried}) == 1
    assert f'"code":"{code}"' in found.error
    assert "secret words" not in found.error
    assert "Traceback" in tried[0].traceback


async def test_an_unknown_kind_dies_and_says_so(worker: Executor, make_task: MakeTask) -> None:
    task = await on_db(make_task)()
    other = await on_db(make_task)(queue="low")
    await on_db(Task.objects.filter(pk=other.pk).update)(kind="gone", next_attempt_at=timezone.now())
    found = await until(other, "dead", "succeeded")
    if found.state == "dead":
        assert '"code":"unknown_kind"' in found.error
    await until(task, "succeeded")


@pytest.mark.parametrize("body", ["", "[1]", "{broken", "null"])
async def test_a_broken_payload_dies(make_task: MakeTask, transactional_db: None, body: str) -> None:
    from apps.tasks.models import TaskPayload

    task = await on_db(make_task)()
    await on_db(TaskPayload.objects.filter(task_id=task.pk).update)(body=body)
    executor = Executor(["default"])
    running = asyncio.ensure_future(executor.run())
    found = await until(task, *FINAL)
    executor.stop()
    await running
    assert found.state == "dead"


async def test_arguments_that_do_not_fit_the_kind_die_with_the_fields_name(
    worker: Executor, make_task: MakeTask, make_kind: MakeKind
) -> None:
    class Strict(Anything):
        n: int

    task = await on_db(make_task)(make_kind(args=Strict), args={"n": "x"})
    found = await until(task, *FINAL)
    assert found.state == "dead"
    assert '"param":"n"' in found.error


async def test_a_running_task_is_cancelled_within_a_second_and_its_neighbours_finish(
    worker: Executor, make_task: MakeTask, make_kind: MakeKind
) -> None:
    gate = Gate()
    kind = make_kind(gate)
    task, neighbour = await on_db(make_task)(kind), await on_db(make_task)(kind)
    await until(task, "running")
    await until(neighbour, "running")
    began = time.monotonic()
    await on_db(cancel)(task.pk)
    await until(task, "cancelled")
    assert time.monotonic() - began < 3
    gate.open.set()
    await until(neighbour, "succeeded")
    assert [one.outcome for one in await on_db(attempts)(task)] == ["cancelled"]


async def test_an_attempt_has_its_time_and_no_more(worker: Executor, make_task: MakeTask, make_kind: MakeKind) -> None:
    told: list[bool] = []

    async def slow(run: Run, args: Anything) -> dict[str, Any]:
        run.partial = {"content": "so far"}
        await run.soft_limit.wait()
        told.append(True)
        await asyncio.sleep(60)
        return {}

    task = await on_db(make_task)(make_kind(slow, limit=1.0))
    found = await until(task, *FINAL)
    assert (found.state, told) == ("dead", [True])
    assert '"code":"timeout"' in found.error
    result = await on_db(TaskResult.objects.get)(pk=task.pk)
    assert result.body == '{"status":"timeout","content":"so far"}'


async def test_a_closed_door_parks_and_then_kills(worker: Executor, make_task: MakeTask, make_kind: MakeKind) -> None:
    closed = [errors.ServiceUnavailable(retry_after=0.01)] * 99
    kind = make_kind(raising(*closed), policy=Policy(park_limit=0.2))
    task = await on_db(make_task)(kind)
    found = await until(task, *FINAL)
    assert (found.state, found.charged_failures) == ("dead", 1)
    assert '"code":"service_unavailable"' in found.error
    assert (await on_db(attempts)(task))[0].outcome == "parked"


async def test_a_result_that_is_no_json_dies_alone(worker: Executor, make_task: MakeTask, make_kind: MakeKind) -> None:
    async def odd(run: Run, args: Anything) -> dict[str, Any]:
        return {"a": float("nan")} if args.model_dump().get("odd") else {"a": object()}

    kind = make_kind(odd)
    tasks = [await on_db(make_task)(kind, args={"odd": odd_}) for odd_ in (True, False)]
    fine = await on_db(make_task)()
    for task in tasks:
        found = await until(task, *FINAL)
        assert found.state == "dead"
        assert "result_not_storable" in found.error
    await until(fine, "succeeded")


async def test_a_receiver_that_refuses_one_task_costs_only_that_one(
    worker: Executor, make_task: MakeTask, make_kind: MakeKind, request: Any
) -> None:
    poison = make_kind()

    def refuse(tasks: list[Any], **_: Any) -> None:
        if any(task.kind == poison.name and task.state == "succeeded" for task in tasks):
            raise RuntimeError("not this one")

    tasks_finished.connect(refuse)
    request.addfinalizer(lambda: tasks_finished.disconnect(refuse))
    bad = await on_db(make_task)(poison)
    good = [await on_db(make_task)() for _ in range(20)]
    for task in good:
        await until(task, "succeeded")
    found = await until(bad, *FINAL)
    assert found.state == "dead"
    assert "result_not_storable" in found.error


async def test_a_worker_that_stops_hands_back_what_it_cannot_end(
    make_task: MakeTask, make_kind: MakeKind, settings: Any, transactional_db: None
) -> None:
    settings.REDRIVE = settings.REDRIVE.model_copy(update={"worker_grace": 0.05})
    task = await on_db(make_task)(make_kind(Gate()))
    executor = Executor(["default"])
    running = asyncio.ensure_future(executor.run())
    await until(task, "running")
    executor.stop()
    await asyncio.wait_for(running, 10)
    found = await until(task, "retrying")
    assert (found.worker_losses, found.charged_failures) == (0, 0)
    assert [one.outcome for one in await on_db(attempts)(task)] == ["handed_back"]
    assert not await on_db(WorkerPresence.objects.filter(pk=executor.worker).exists)()


async def test_an_attempt_whose_lease_was_taken_ends_without_a_trace(
    worker: Executor, make_task: MakeTask, make_kind: MakeKind, settings: Any
) -> None:
    settings.REDRIVE = settings.REDRIVE.model_copy(update={"worker_ttl": 0.05})
    task = await on_db(make_task)(make_kind(Gate()))
    await until(task, "running")
    await on_db(Task.objects.filter(pk=task.pk).update)(
        state="retrying",
        token=None,
        worker=None,
        run_until=None,
        next_attempt_at=timezone.now() + timedelta(1),
    )
    async with asyncio.timeout(5):
        while task.pk in worker._attempts:
            await asyncio.sleep(0.02)
    assert await on_db(attempts)(task) == []


def test_free_slots_are_dealt_by_weight_and_none_is_left() -> None:
    assert _deal({"low"}, 7) == [("low", 7)]
    shares = dict(_deal({"high", "default", "low"}, 100))
    assert shares == {"high": 60, "default": 30, "low": 10}
    first = [_deal({"high", "default", "low"}, 1)[0][0] for _ in range(3000)]
    assert 1500 < first.count("high") < 2100
    assert 150 < first.count("low") < 500
