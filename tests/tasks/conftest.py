"""Kinds made of scripted handlers, tasks in the database, and a worker that runs until the test ends."""

import asyncio
import functools
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from pydantic import BaseModel

import tests.properties  # noqa: F401 (sets the profile)
from apps.core.database import in_db
from apps.tasks import kinds, states
from apps.tasks.attempt import Run
from apps.tasks.enqueue import NewTask, insert
from apps.tasks.executor import Executor
from apps.tasks.kinds import Kind
from apps.tasks.lifecycle.claim import Claimed, claim
from apps.tasks.lifecycle.ending import Ending
from apps.tasks.models import Task
from apps.tasks.retry_policy import Decision
from apps.tasks.signals import tasks_died, tasks_finished

Handler = Callable[[Run, "Anything"], Awaitable[dict[str, Any]]]
MakeKind = Callable[..., Kind]
MakeTask = Callable[..., Task]
AsPerson = Callable[..., Client]
News = dict[str, list[Any]]


class Anything(BaseModel, extra="allow"):
    """Any arguments."""


async def echo(run: Run, args: Anything) -> dict[str, Any]:
    """The arguments."""
    return args.model_dump()


@pytest.fixture
def make_kind() -> Iterator[MakeKind]:
    """Register a kind for the test: `make_kind(handler, policy=...)`."""
    made: list[str] = []

    def make(handler: Handler = echo, **fields: Any) -> Kind:
        kind = Kind(f"test_{uuid4().hex[:12]}", fields.pop("args", Anything), handler, **fields)
        kinds.register(kind)
        made.append(kind.name)
        return kind

    yield make
    for name in made:
        kinds._kinds.pop(name, None)


@pytest.fixture
def make_task(make_kind: MakeKind) -> MakeTask:
    """Insert a due task: `make_task(kind, args={...}, queue="low")`; of a kind that echoes without one."""

    def make(kind: Kind | None = None, *, args: Any = None, project_id: UUID | None = None, **fields: Any) -> Task:
        new = NewTask(project_id or uuid4(), kind or make_kind(), json.dumps(args or {}), **fields)
        insert([new])
        return Task.objects.get(pk=new.id)

    return make


def take(task: Task, worker: UUID | None = None) -> Claimed:
    """Claim due tasks of its queue until it is this one; the lease."""
    for claimed in claim(task.queue, worker or uuid4(), 1000, limits=kinds.limits()):
        if claimed.id == task.pk:
            return claimed
    raise AssertionError("not claimed")


def take_all(tasks: Iterable[Task]) -> list[Claimed]:
    """Claim due tasks of one queue; the leases of these, in their order."""
    wanted = list(tasks)
    claimed = {one.id: one for one in claim(wanted[0].queue, uuid4(), 1000, limits=kinds.limits())}
    return [claimed[task.pk] for task in wanted]


def ending(claimed: Claimed, state: str = "succeeded", outcome: str = "succeeded", **fields: Any) -> Ending:
    """The end of an attempt."""
    decided = {name: fields.pop(name) for name in ("delay", "charged", "parked", "frozen") if name in fields}
    defaults: dict[str, Any] = {"result": "{}" if state == "succeeded" else None, "worker": uuid4(), "request_id": "r"}
    return Ending(
        task_id=claimed.id,
        kind=claimed.kind,
        token=claimed.token,
        number=claimed.attempt,
        cycle=claimed.cycle,
        started_at=claimed.started_at,
        decision=Decision(state, outcome, **decided),
        **{**defaults, **fields},
    )


@pytest.fixture
async def worker(transactional_db: None) -> AsyncIterator[Executor]:
    """A worker of all queues but quarantine, in this process and loop."""
    executor = Executor(states.TOGETHER, slots=50)
    running = asyncio.ensure_future(executor.run())
    yield executor
    executor.stop()
    await asyncio.wait_for(running, 30)


def on_db(verb: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """The verb as a coroutine function, through the one door: connections of other threads would outlive the test."""
    return functools.partial(in_db, verb)


async def until(task: Task, *states: str, within: float = 10.0) -> Task:
    """Wait for a task to come to one of these states; its row."""
    async with asyncio.timeout(within):
        while True:
            found: Task = await in_db(Task.objects.get, pk=task.pk)
            if found.state in states:
                return found
            await asyncio.sleep(0.02)


@pytest.fixture
def as_person(client: Client, django_user_model: Any) -> AsPerson:
    """Log in as a member of the staff with these permissions: `as_person("view_task")`."""

    def log_in(*codenames: str) -> Client:
        person = django_user_model.objects.create_user(f"person-{uuid4().hex[:8]}", is_staff=True)
        person.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(person)
        return client

    return log_in


class Gate:
    """Holds handlers until it opens, and tells when one has come."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    async def __call__(self, run: Run, args: Anything) -> dict[str, Any]:
        self.entered.set()
        while not self.open.is_set():
            await asyncio.sleep(0.005)
        return {}


@pytest.fixture
def news() -> Iterator[News]:
    """What the signals told."""
    heard: dict[str, list[Any]] = {"finished": [], "died": []}

    def finished(tasks: list[Any], **_: Any) -> None:
        heard["finished"].extend(tasks)

    def died(deaths: list[Any], **_: Any) -> None:
        heard["died"].extend(deaths)

    tasks_finished.connect(finished)
    tasks_died.connect(died)
    yield heard
    tasks_finished.disconnect(finished)
    tasks_died.disconnect(died)
