"""Health checks: each within its time, none able to stop the others."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from apps.core import health, store_checks
from tests.redis_servers import redis_server, silent
from tests.stores import NOBODY_LISTENS, PointRedisAt


@pytest.fixture(autouse=True)
def _own_checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(health, "_checks", {})
    yield


async def fine() -> dict[str, Any]:
    """Passes, with a fact."""
    return {"fact": 1}


async def failing() -> dict[str, Any]:
    """Fails, with a secret in its message."""
    raise ValueError("user=redrive password=secret")


async def hanging() -> dict[str, Any]:
    """Never ends."""
    await asyncio.Event().wait()
    return {}


async def test_checks_that_all_pass_make_it_ready() -> None:
    health.register("one", fine)
    status, reports = await health.run()
    assert status == health.OK
    assert reports["one"]["ok"]
    assert reports["one"]["fact"] == 1
    assert reports["one"]["ms"] >= 0


async def test_one_that_fails_is_named_without_its_message() -> None:
    health.register("one", fine)
    health.register("two", failing)
    status, reports = await health.run()
    assert status == health.UNAVAILABLE
    assert reports["one"]["ok"]
    assert (reports["two"]["ok"], reports["two"]["error"]) == (False, "ValueError")
    assert "secret" not in str(reports)


async def test_one_that_is_not_vital_degrades_and_no_more() -> None:
    async def unwell() -> dict[str, Any]:
        raise health.Unwell("No worker runs.", unserved=["low"])

    health.register("one", fine)
    health.register("two", unwell, vital=False)
    status, reports = await health.run()
    assert status == health.DEGRADED
    assert reports["two"] == {
        "ok": False, "vital": False, "ms": reports["two"]["ms"], "error": "No worker runs.", "unserved": ["low"],
    }  # fmt: skip
    health.register("three", failing)
    assert (await health.run())[0] == health.UNAVAILABLE


async def test_one_that_hangs_costs_its_time_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "TIMEOUT", 0.1)
    for name, check in (("one", hanging), ("two", hanging), ("three", fine)):
        health.register(name, check)
    began = time.monotonic()
    status, reports = await health.run()
    assert time.monotonic() - began < 0.5
    assert status == health.UNAVAILABLE
    assert reports["one"]["error"] == reports["two"]["error"] == "TimeoutError"
    assert reports["three"]["ok"]


async def test_redis_is_checked_by_the_pipe_of_the_hot_path(point_redis_at: PointRedisAt, settings: Any) -> None:
    health.register("redis", store_checks.redis)
    point_redis_at(settings.REDRIVE.redis_url, redis_timeout=5.0)
    assert (await health.run())[0] == health.OK
    point_redis_at(NOBODY_LISTENS)
    assert (await health.run())[0] == health.UNAVAILABLE


async def test_a_frozen_redis_is_not_ready(point_redis_at: PointRedisAt) -> None:
    health.register("redis", store_checks.redis)
    async with redis_server(silent) as frozen:
        point_redis_at(frozen.url)
        assert (await health.run())[0] == health.UNAVAILABLE


async def test_a_redis_that_is_loading_is_not_ready(point_redis_at: PointRedisAt) -> None:
    async def loading(command: list[bytes]) -> bytes | None:
        return b"+OK\r\n" if command[0] == b"SELECT" else b"-LOADING Redis is loading the dataset in memory\r\n"

    health.register("redis", store_checks.redis)
    async with redis_server(loading) as server:
        point_redis_at(server.url)
        assert (await health.run())[0] == health.UNAVAILABLE


@pytest.mark.django_db(transaction=True)
async def test_postgres_and_the_migrations_are_checked() -> None:
    health.register("postgres", store_checks.postgres)
    health.register("migrations", store_checks.migrations)
    status, reports = await health.run()
    assert status == health.OK
    assert reports["postgres"]["version"] > 130_000
