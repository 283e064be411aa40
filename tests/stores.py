"""Fixtures around the process's Redis pipe: one that is patient on a busy machine, and one pointed elsewhere."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis

from apps.core import redis as redis_store

PointRedisAt = Callable[..., None]
NOBODY_LISTENS = "redis://127.0.0.1:1/0"


@pytest.fixture
def valkey(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    """The real Valkey, emptied, as a plain client; the process's pipe waits 5 s for it."""
    url = settings.REDRIVE.redis_url
    monkeypatch.setattr(redis_store, "_pipe", redis_store.ScriptPipe(url, timeout=5))
    with Redis.from_url(url) as client:
        client.flushdb()
        yield client


@pytest.fixture
def point_redis_at(settings: Any, monkeypatch: pytest.MonkeyPatch) -> PointRedisAt:
    """Let the process's pipe be made anew from other settings: `point_redis_at(url, limits_fail_open=False)`."""

    def point(url: str, **others: Any) -> None:
        settings.REDRIVE = settings.REDRIVE.model_copy(update={"redis_url": url, **others})
        monkeypatch.setattr(redis_store, "_pipe", None)

    return point
