"""`in_db`, the one door to Postgres."""

import asyncio
import contextvars
import threading

import pytest
from django.conf import settings
from django.db import OperationalError, connection, transaction

from apps.access.models import Project
from apps.core.database import in_db

pytestmark = pytest.mark.django_db(transaction=True)
word = contextvars.ContextVar("word", default="nobody's")


def backend() -> int:
    """The server process behind this thread's connection."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid: int = cursor.fetchone()[0]
        return pid


async def test_a_verb_runs_in_a_database_thread_and_returns_its_result() -> None:
    name, result = await in_db(lambda a, *, b: (threading.current_thread().name, a + b), 1, b=2)
    assert name.startswith("redrive-db")
    assert result == 3


async def test_a_verbs_error_is_raised_as_it_is() -> None:
    def verb() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await in_db(verb)


async def test_a_verb_sees_the_callers_context_and_does_not_change_it() -> None:
    word.set("the caller's")

    def verb() -> str:
        seen = word.get()
        word.set("the verb's")
        return seen

    assert await in_db(verb) == "the caller's"
    assert word.get() == "the caller's"


async def test_a_connection_is_back_in_the_pool_when_a_verb_has_ended() -> None:
    await asyncio.gather(*(in_db(backend) for _ in range(200)))

    def state() -> tuple[bool, int]:
        connection.ensure_connection()
        stats = connection.pool.get_stats()  # type: ignore[attr-defined]
        return connection.in_atomic_block, stats["pool_size"] - stats["pool_available"]

    in_atomic_block, taken = await in_db(state)
    assert not in_atomic_block
    assert taken <= 2  # this verb's, and the test's own


async def test_more_verbs_than_connections_wait_their_turn() -> None:
    results = await asyncio.gather(*(in_db(backend) for _ in range(settings.REDRIVE.database_pool_size * 5)))
    assert len(set(results)) <= settings.REDRIVE.database_pool_size


async def test_a_cancelled_caller_does_not_undo_the_verb() -> None:
    begun, go, done = threading.Event(), threading.Event(), threading.Event()

    def verb() -> None:
        begun.set()
        go.wait(5)
        with transaction.atomic():
            Project.objects.create(name="stands")
        done.set()

    task = asyncio.ensure_future(in_db(verb))
    assert await asyncio.to_thread(begun.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    assert await asyncio.to_thread(done.wait, 5)
    assert await in_db(Project.objects.filter(name="stands").exists)


async def test_a_connection_that_postgres_closed_is_replaced() -> None:
    def end_own_session() -> None:
        with pytest.raises(OperationalError), connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    for _ in range(3):
        await in_db(end_own_session)
        assert await in_db(backend) > 0


async def test_an_open_transaction_is_not_left_to_the_next_verb() -> None:
    def leave_it_open() -> None:
        connection.ensure_connection()
        connection.set_autocommit(False)
        Project.objects.create(name="half")

    await in_db(leave_it_open)
    states = await asyncio.gather(*(in_db(lambda: connection.get_autocommit()) for _ in range(20)))
    assert all(states)
    assert not await in_db(Project.objects.filter(name="half").exists)
