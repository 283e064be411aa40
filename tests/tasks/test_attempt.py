"""Whatever a handler does, its attempt ends with a decision, its slot is free again, and its cost is kept."""

import asyncio
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone
from pydantic import BaseModel

from apps.completions.ledger import Entry
from apps.completions.models import LedgerEntry
from apps.core import ids
from apps.core.redis import RedisAway
from apps.tasks import states
from apps.tasks.attempt import Run, perform
from apps.tasks.executor import Executor
from apps.tasks.kinds import Policy
from apps.tasks.lifecycle.ending import Ending
from apps.tasks.models import Task, TaskAttempt, TaskResult
from tests.gateway import ROOT
from tests.tasks.blocking import tell_and_sleep
from tests.tasks.conftest import Anything, Gate, MakeKind, MakeTask, on_db, take, until


class Unspeakable(Exception):
    """Cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Strict(BaseModel):
    """Something with a field."""

    number: int


async def unspeakable(run: Run, args: Anything) -> dict[str, Any]:
    raise Unspeakable


async def exits(run: Run, args: Anything) -> dict[str, Any]:
    sys.exit(3)


async def partial_that_is_no_json(run: Run, args: Anything) -> dict[str, Any]:
    run.partial = {"so far": {1, 2}}
    await asyncio.sleep(30)
    return {}


async def misreads_an_answer(run: Run, args: Anything) -> dict[str, Any]:
    Strict.model_validate({"number": "x"})
    return {}


@pytest.mark.parametrize("handler", [unspeakable, exits, partial_that_is_no_json, misreads_an_answer])
async def test_a_handler_that_goes_astray_dies_and_its_slot_is_free(
    worker: Executor, make_task: MakeTask, make_kind: MakeKind, handler: Any
) -> None:
    task = await on_db(make_task)(make_kind(handler, limit=0.2, policy=Policy(base=0)))
    found = await until(task, "dead")
    assert json.loads(found.error)["code"] in {"internal_error", "result_not_storable"}
    async with asyncio.timeout(2):
        while worker._attempts:
            await asyncio.sleep(0.01)


async def ended(make_task: MakeTask, make_kind: MakeKind, handler: Any, **fields: Any) -> Ending:
    """What an attempt of this handler came to."""
    claimed = await on_db(lambda: take(make_task(make_kind(handler), **fields)))()
    return await perform(Run(claimed, ids.new_uuid()))


@pytest.mark.parametrize("error", [OperationalError("away"), RedisAway("away")])
async def test_a_store_that_is_away_is_waited_for_and_no_bug(
    make_task: MakeTask, make_kind: MakeKind, transactional_db: None, error: Exception
) -> None:
    async def handle(run: Run, args: Anything) -> dict[str, Any]:
        raise error

    ending = await ended(make_task, make_kind, handle)
    assert (ending.decision.state, ending.decision.charged) == (states.RETRYING, False)
    assert ending.failure is not None
    assert ending.failure.code == "service_unavailable"


async def test_an_attempt_ends_at_its_tasks_deadline(
    make_task: MakeTask, make_kind: MakeKind, transactional_db: None
) -> None:
    ending = await ended(make_task, make_kind, Gate(), deadline=0.3)
    assert (ending.decision.state, ending.decision.outcome) == ("dead", "timed_out")
    assert ending.failure is not None
    assert ending.failure.code == "timeout"


async def test_what_blocks_runs_in_a_process_of_its_own_which_is_killed_when_the_time_is_over(
    worker: Executor, make_task: MakeTask, make_kind: MakeKind, tmp_path: Path
) -> None:
    async def handle(run: Run, args: Anything) -> dict[str, Any]:
        await run.in_process(tell_and_sleep, str(tmp_path / "pid"))
        return {}

    stuck = await on_db(make_task)(make_kind(handle, limit=3.0))
    neighbour = await on_db(make_task)()
    assert (await until(neighbour, "succeeded")).state == "succeeded"
    assert json.loads((await until(stuck, "dead", within=15)).error)["code"] == "timeout"
    child = int((tmp_path / "pid").read_text())
    assert child != os.getpid()
    async with asyncio.timeout(5):
        while Path(f"/proc/{child}").exists():
            await asyncio.sleep(0.05)


async def test_a_process_that_dies_is_its_tasks_trouble_alone(
    worker: Executor, make_task: MakeTask, make_kind: MakeKind
) -> None:
    async def handle(run: Run, args: Anything) -> dict[str, Any]:
        await run.in_process(os._exit, 3)
        return {}

    dying = await on_db(make_task)(make_kind(handle, policy=Policy(base=0)))
    neighbour = await on_db(make_task)()
    assert (await until(neighbour, "succeeded")).state == "succeeded"
    assert (await until(dying, "dead", within=15)).worker_losses == 0


def test_a_process_of_its_own_starts_also_in_a_worker_that_is_a_package_as_python_m_celery_is(tmp_path: Path) -> None:
    package = tmp_path / "packaged"
    package.mkdir()
    (package / "__init__.py").write_text("import django\n\ndjango.setup()\n")
    (package / "__main__.py").write_text(
        "import asyncio\nimport os\nfrom . import django\nfrom apps.tasks.attempt import Run\n"
        "child = asyncio.run(Run(None, None).in_process(os.getpid))\nassert child != os.getpid()\n"
    )
    environment = {
        "DJANGO_SETTINGS_MODULE": "config.settings", "REDRIVE_SECRET_KEY": "x", "PATH": "",
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
    }  # fmt: skip
    done = run([sys.executable, "-m", "packaged"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def an_entry(task: Task, request_id: str) -> Entry:
    """A row of the ledger for one upstream request."""
    return Entry(
        id=ids.new_uuid(), created_at=datetime.now(UTC), request_id=request_id, project_id=task.project_id,
        api_key_id=ids.new_uuid(), end_user="", operation="chat/completions", model="m", provider="p",
        upstream_model="u", upstream_request_id="", attempt=1, stream=False, outcome="cancelled", status=None,
        error_code="", input_tokens=1, cached_tokens=0, output_tokens=1, cost_nusd=5, estimated=True, latency_ms=1,
        ttft_ms=None, elapsed_ms=1,
    )  # fmt: skip


async def test_of_an_attempt_that_lost_its_lease_the_cost_is_kept(
    worker: Executor, make_task: MakeTask, make_kind: MakeKind, settings: Any
) -> None:
    settings.REDRIVE = settings.REDRIVE.model_copy(update={"worker_ttl": 0.05})

    async def handle(run: Run, args: Anything) -> dict[str, Any]:
        run.book(an_entry(task, "lost-lease"))
        await asyncio.sleep(30)
        return {}

    task = await on_db(make_task)(make_kind(handle))
    await until(task, "running")
    await on_db(Task.objects.filter(pk=task.pk).update)(
        state="retrying", token=None, worker=None, run_until=None, next_attempt_at=timezone.now() + timedelta(1)
    )
    async with asyncio.timeout(5):
        while not await on_db(LedgerEntry.objects.filter(request_id="lost-lease").exists)():
            await asyncio.sleep(0.02)
    assert not await on_db(TaskAttempt.objects.filter(task_id=task.pk).exists)()


async def test_what_was_spent_on_a_result_that_cannot_be_stored_is_booked(
    worker: Executor, make_task: MakeTask, make_kind: MakeKind
) -> None:
    async def handle(run: Run, args: Anything) -> dict[str, Any]:
        run.book(an_entry(task, "not-storable"))
        return {"x": {1, 2}}

    task = await on_db(make_task)(make_kind(handle))
    await until(task, "dead", "retrying")
    assert await on_db(LedgerEntry.objects.filter(request_id="not-storable").exists)()
    assert not await on_db(TaskResult.objects.filter(pk=task.pk).exists)()
