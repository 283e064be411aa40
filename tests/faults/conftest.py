"""The faults' own stores and gateways: nothing here is shared with other tests."""

import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.faults.crew import QUICK, Crew, broken
from tests.faults.nursery import Born, close_nursery, open_nursery
from tests.faults.stores import Set, Stores
from tests.gateway import Gateway
from tests.journeys.conftest import Client
from tests.journeys.wire import call, eventually
from tests.upstream import Upstream

Serve = Callable[..., Gateway]


@pytest.fixture(scope="session")
def stores(upstream: Upstream) -> Iterator[Stores]:
    """Postgres and Valkey that a test may stop, freeze and start again."""
    made = Stores(upstream.url)
    yield made
    made.stop()
    shutil.rmtree(made.folder.parent, ignore_errors=True)


@pytest.fixture(scope="session")
def long_lived(stores: Stores) -> Iterator[Gateway]:
    """A gateway with the defaults on these stores."""
    served = Gateway(stores.environment)
    yield served
    served.stop()


@pytest.fixture
def gateway(long_lived: Gateway) -> Gateway:
    """The same, once it has found both stores again after the test before."""
    assert eventually(lambda: call(long_lived.url, "GET", "/readyz").status == 200, within=15, every=0.05)
    return long_lived


@pytest.fixture
def serve(stores: Stores) -> Iterator[Serve]:
    """Start a gateway with settings of its own."""
    served: list[Gateway] = []

    def start(**environment: str) -> Gateway:
        served.append(Gateway({**stores.environment, **environment}))
        return served[-1]

    yield start
    for each in served:
        each.stop()


@pytest.fixture
def mine(stores: Stores) -> Set:
    """A route and keys for this test alone."""
    return stores.next_set()


@pytest.fixture
def plain(gateway: Gateway, mine: Set) -> Client:
    """A caller without limits whom the gateway knows."""
    client = Client(gateway.url, mine.plain)
    assert client.chat(mine.model).status == 200
    return client


@pytest.fixture(scope="session")
def clock(stores: Stores) -> Iterator[Born]:
    """A clock that no fault ends."""
    open_nursery({**stores.environment, **QUICK})
    born = Born({**stores.environment, **QUICK}, "clock")
    yield born
    assert born.lives, born.log.read_text()
    born.end()
    close_nursery()


@pytest.fixture
def crew(stores: Stores, clock: Born) -> Iterator[Crew]:
    """Processes for this test beside that clock; after it the invariants hold."""
    made = Crew(stores)
    yield made
    made.stop()
    try:
        assert broken(stores) == {}
    finally:
        stores.forget_tasks()
