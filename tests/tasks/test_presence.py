"""A worker claims only while its sign of life stands, and no living worker is taken for lost."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.db import connection

from apps.core import ids
from apps.tasks.executor import Executor
from apps.tasks.lifecycle.reap import LOCK_CLASS, reap
from apps.tasks.models import WorkerPresence
from apps.tasks.presence import Presence
from tests.tasks.conftest import MakeTask, on_db
from tests.time import age

pytestmark = pytest.mark.django_db(transaction=True)


def a_presence() -> Presence:
    """One that is not started: beats are made by hand."""
    return Presence(ids.new_uuid(), ["default"], 1, in_flight=lambda: 0, turned=time.monotonic)


@pytest.fixture
def beating() -> Any:
    """A presence after its first beat."""
    presence = a_presence()
    presence._beat()
    yield presence
    presence._leave()


def elsewhere(statement: str, *values: Any) -> Callable[[], None]:
    """Run a statement in a session of its own that stays; what ends it."""
    names = ("dbname", "user", "password", "host", "port")
    known = connection.get_connection_params()
    session = psycopg.connect(**{name: known[name] for name in names if name in known}, autocommit=True)
    session.execute(statement, list(values))  # type: ignore[call-overload]
    return session.close


def test_a_beat_makes_it_stand_for_less_than_its_row(beating: Presence, settings: Any) -> None:
    assert beating.stands()
    assert beating._stands_until < time.monotonic() + settings.REDRIVE.worker_ttl
    assert WorkerPresence.objects.get(pk=beating.worker).lock_key == beating._lock_key


def test_without_its_lock_the_expiry_speaks_for_it_until_it_gets_the_lock() -> None:
    presence = a_presence()
    end = elsewhere("SELECT pg_advisory_lock(%s, %s)", LOCK_CLASS, presence._lock_key)
    presence._beat()
    row = WorkerPresence.objects.get(pk=presence.worker)
    assert row.lock_key is None
    end()
    WorkerPresence.objects.filter(pk=row.pk).update(beat_at=row.beat_at - (row.expires_at - row.beat_at) / 2)
    reap()
    assert WorkerPresence.objects.filter(pk=row.pk).exists()
    presence._beat()
    row.refresh_from_db()
    assert row.lock_key == presence._lock_key
    presence._leave()


def test_a_worker_that_is_gone_is_forgotten_at_once(beating: Presence) -> None:
    beating._disconnect()
    row = WorkerPresence.objects.get(pk=beating.worker)
    WorkerPresence.objects.filter(pk=row.pk).update(beat_at=row.beat_at - (row.expires_at - row.beat_at) / 2)
    reap()
    assert not WorkerPresence.objects.filter(pk=row.pk).exists()


def test_a_worker_without_a_sign_of_life_is_forgotten_when_it_expires(beating: Presence) -> None:
    age(WorkerPresence.objects.get(pk=beating.worker), hours=1)
    reap()
    assert not WorkerPresence.objects.filter(pk=beating.worker).exists()


async def test_a_worker_whose_presence_does_not_stand_claims_nothing(worker: Executor, make_task: MakeTask) -> None:
    async with asyncio.timeout(5):
        while not worker.presence.registered.is_set():
            await asyncio.sleep(0.01)
    await on_db(make_task)()
    worker.presence._stands_until = 0.0
    assert await worker._claim("default", 10) == 0
    worker.presence._stands_until = time.monotonic() + 5
    assert await worker._claim("default", 10) <= 1
