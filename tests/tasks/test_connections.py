"""Two thousand tasks in flight need a handful of connections to Postgres, and an upstream call needs none at all."""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from django.conf import settings
from django.db import connection

from apps.core import json_codec
from apps.tasks import kinds
from apps.tasks.enqueue import NewTask, insert
from apps.tasks.models import Task
from tests.conftest import MakeKey, MakeRoute, database_url
from tests.upstream import Upstream, ok
from tests.worker import Child

pytestmark = pytest.mark.django_db(transaction=True)

WORKERS, SLOTS = 2, 1000
MOST = 20
PRESENCE = "redrive-presence"


class Held:
    """An upstream that answers nobody until it is told to."""

    def __init__(self) -> None:
        self.waiting = 0
        self._open = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        self._loop = asyncio.get_running_loop()
        self.waiting += 1
        await self._open.wait()
        return await ok()(request, body)

    def release(self) -> None:
        """Answer all."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._open.set)


@pytest.fixture
def application() -> str:
    """The name by which Postgres knows the workers' sessions."""
    return f"workers-{uuid4().hex[:12]}"


@pytest.fixture
def workers(application: str) -> Iterator[list[Child]]:
    """Workers with a thousand slots each, of whom Postgres knows the name."""
    environment = {
        "REDRIVE_DATABASE_URL": database_url(),
        "REDRIVE_REDIS_URL": settings.REDRIVE.redis_url,
        "REDRIVE_LOG_LEVEL": "WARNING",
        "PGAPPNAME": application,
    }
    started = [Child(environment, "worker", "--slots", str(SLOTS)) for _ in range(WORKERS)]
    yield started
    for child in started:
        child.stop()


def wait_for(what: Any, number: int, *, within: float = 40.0) -> None:
    """Until `what()` is the number."""
    tick, ends = threading.Event(), time.monotonic() + within
    while what() != number:
        assert time.monotonic() < ends, f"{what()} of {number}"
        tick.wait(0.05)


def sessions(application: str) -> list[tuple[int, str, bool]]:
    """The workers' sessions: process id, application name, and whether it does or holds anything."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid, application_name, state <> 'idle' OR xact_start IS NOT NULL FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name IN (%s, %s)",
            [application, PRESENCE],
        )
        return list(cursor.fetchall())


def test_two_thousand_tasks_in_flight_hold_no_connection(
    make_key: MakeKey, make_route: MakeRoute, upstream: Upstream, application: str, request: pytest.FixtureRequest
) -> None:
    key, _ = make_key()
    model, held = make_route(), Held()
    upstream.script(model, held)
    args = json_codec.ascii_dumps({"model": model, "messages": [{"role": "user", "content": "hello"}]})
    kind = kinds.find("chat_completion")
    insert([NewTask(key.project_id, kind, args, api_key_id=key.pk) for _ in range(WORKERS * SLOTS)])
    request.getfixturevalue("workers")
    try:
        wait_for(lambda: held.waiting, WORKERS * SLOTS)
        seen: list[list[tuple[int, str, bool]]] = []
        tick = threading.Event()
        for _ in range(30):
            seen.append(sessions(application))
            tick.wait(0.05)
    finally:
        held.release()
    wait_for(Task.objects.filter(state="succeeded").count, WORKERS * SLOTS)

    assert max(len(sample) for sample in seen) <= MOST
    assert {sum(name == PRESENCE for _, name, _ in sample) for sample in seen} == {WORKERS}
    pooled = {pid for sample in seen for pid, name, _ in sample if name == application}
    assert pooled
    busy = [{pid for pid, name, is_busy in sample if name == application and is_busy} for sample in seen]
    assert not set.intersection(*busy), "a session was held as long as the calls lasted"
