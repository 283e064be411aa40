"""A receiver that may be called, projects with secrets, and tasks that end with somebody to tell."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from apps.access.models import Project
from apps.core.database import in_db
from apps.tasks.enqueue import NewTask, insert
from apps.tasks.executor import Executor
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import Task
from apps.webhooks import secrets
from apps.webhooks.models import WebhookAttempt, WebhookEvent
from tests.receiver import HOST
from tests.tasks.conftest import MakeKind, ending, make_kind, make_task, take

__all__ = ["make_kind", "make_task"]
MakeProject = Callable[..., tuple[Project, str]]
End = Callable[..., Task]


@pytest.fixture(autouse=True)
def _the_receiver_is_allowed(settings: Any) -> None:
    settings.REDRIVE = settings.REDRIVE.model_copy(update={"outbound_allow": [HOST]})


@pytest.fixture
def make_project(db: None) -> MakeProject:
    """Make a project with a secret: both."""

    def make(**fields: Any) -> tuple[Project, str]:
        project = Project.objects.create(name=f"p-{uuid4().hex[:12]}", **fields)
        return project, secrets.create(project=project)[1]

    return make


@pytest.fixture
def end(make_kind: MakeKind) -> End:
    """A task that ends now: `end(project, url, state="dead", result='{"a": 1}')`; the task, final."""

    def make(
        project: Project,
        url: str,
        state: str = "succeeded",
        *,
        result: str | None = None,
        **fields: Any,
    ) -> Task:
        new = NewTask(project.pk, make_kind(), "{}", callback_url=url, request_id="req_1", **fields)
        insert([new])
        claimed = take(Task.objects.get(pk=new.id))
        more: dict[str, Any] = {"result": result or '{"answer": 42}'} if state == "succeeded" else {}
        if state == "dead":
            more = {"failure": failure(), "charged": True}
        outcome = {"succeeded": "succeeded", "dead": "failed", "cancelled": "cancelled"}[state]
        [became] = finish([ending(claimed, state, outcome, **more)])
        assert became == state
        return Task.objects.get(pk=new.id)

    return make


def failure() -> Any:
    """Why a task died."""
    from apps.core.errors import ContentFiltered
    from apps.tasks.lifecycle.ending import failure_of

    return failure_of(ContentFiltered(), kind="k", upstream="p/m")


def event_of(task: Task) -> WebhookEvent:
    """The event of a task's last cycle."""
    return WebhookEvent.objects.get(task_id=task.pk, cycle=task.cycle)


def body_of(task: Task) -> dict[str, Any]:
    """What its callback URL is told."""
    found: dict[str, Any] = json.loads(event_of(task).body)
    return found


def tries(task: Task) -> list[WebhookAttempt]:
    """The tries to tell of it, in order."""
    return list(WebhookAttempt.objects.filter(task_id=task.pk).order_by("id"))


@pytest.fixture
async def worker(transactional_db: None) -> AsyncIterator[Executor]:
    """A worker of the webhooks alone, in this process and loop."""
    executor = Executor(["webhooks"], slots=20)
    running = asyncio.ensure_future(executor.run())
    yield executor
    executor.stop()
    await asyncio.wait_for(running, 30)


def on_db(verb: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """The verb as a coroutine function, through the one door."""

    async def call(*args: Any, **options: Any) -> Any:
        return await in_db(verb, *args, **options)

    return call


async def delivered(worker: Executor, task: Task, *states: str, attempts: int = 1, within: float = 10.0) -> Task:
    """Wait until the delivery of a task's event is in one of the states, after so many attempts; its row."""
    async with asyncio.timeout(within):
        while True:
            worker.wake(["webhooks"])
            event = await in_db(event_of, task)
            found: Task = await in_db(Task.objects.get, pk=event.delivery_id)
            if found.state in states and found.attempt >= attempts:
                return found
            await asyncio.sleep(0.02)
