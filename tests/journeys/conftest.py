"""Fixtures of the journeys: a caller of the real gateway over plain HTTP, and readers of what it wrote down."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from django.conf import settings
from redis import Redis

from apps.completions.models import LedgerEntry
from tests.conftest import MakeKey, MakeRoute, database_url
from tests.gateway import Gateway
from tests.journeys import wire
from tests.journeys.browser import browsing, in_browser  # noqa: F401 (fixtures)
from tests.journeys.wire import Reply, eventually
from tests.worker import Child

Rows = Callable[..., list[LedgerEntry]]
HELLO = [{"role": "user", "content": "hello there"}]


@dataclass
class Client:
    """Calls the gateway with one key."""

    url: str
    secret: str | None

    def call(self, method: str, path: str, **options: Any) -> Reply:
        """Any request; options as wire.send."""
        return wire.call(self.url, method, path, key=self.secret, **options)

    def chat(self, model: str, *, headers: dict[str, str] | None = None, **fields: Any) -> Reply:
        """One chat completion."""
        payload = {"model": model, "messages": HELLO, **fields}
        return self.call("POST", "/v1/chat/completions", payload=payload, headers=headers)

    def begin_chat(self, model: str, **fields: Any) -> Any:
        """A chat completion whose reply is left unread: the connection."""
        payload = {"model": model, "messages": HELLO, **fields}
        return wire.send(self.url, "POST", "/v1/chat/completions", key=self.secret, payload=payload)

    def open_chat(self, model: str, **fields: Any) -> Any:
        """A streamed chat completion that has begun: the connection and the response."""
        payload = {"model": model, "messages": HELLO, "stream": True, **fields}
        return wire.open_stream(self.url, "/v1/chat/completions", key=self.secret, payload=payload)


@pytest.fixture
def caller(transactional_db: None, gateway: Gateway, make_key: MakeKey) -> Callable[..., Client]:
    """Make a key and a client that uses it: `caller(rpm=10, limits={...})` as make_key."""

    def make(*args: Any, **options: Any) -> Client:
        return Client(gateway.url, make_key(*args, **options)[1])

    return make


@pytest.fixture
def client(caller: Callable[..., Client]) -> Client:
    """A client whose key is hardly limited."""
    return caller()


@pytest.fixture
def route(transactional_db: None, make_route: MakeRoute) -> MakeRoute:
    """make_route, on a database that the gateway sees."""
    return make_route


@pytest.fixture
def ledger(transactional_db: None) -> Rows:
    """The ledger rows of a model, oldest first, once there are `count`; they come within 100 ms (3x room and more)."""

    def rows(model: str, count: int = 1, within: float = 3.0) -> list[LedgerEntry]:
        found = partial(lambda: list(LedgerEntry.objects.filter(model=model).order_by("created_at", "attempt")))
        eventually(lambda: len(found()) >= count, within)
        entries = found()
        assert len(entries) == count, entries
        return entries

    return rows


@pytest.fixture
def store(settings: Any) -> Redis:
    """This worker's database of the Redis that the gateway uses."""
    return Redis.from_url(settings.REDRIVE.redis_url)


@pytest.fixture
def worker(transactional_db: None) -> Iterator[Child]:
    """A worker without Celery, for the test: one that outlived it would be in the way of the flush."""
    environment = {"REDRIVE_DATABASE_URL": database_url(), "REDRIVE_REDIS_URL": settings.REDRIVE.redis_url}
    child = Child(environment, "worker")
    yield child
    child.stop()
