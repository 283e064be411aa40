"""A task with a budget while Redis is away: accepted, put off as often as it takes, and done once Redis is there."""

from typing import Any

import pytest

from tests.faults.stores import Set, Stores
from tests.gateway import Gateway
from tests.journeys.conftest import HELLO, Client
from tests.journeys.wire import eventually
from tests.upstream import Upstream
from tests.worker import Child


@pytest.mark.parametrize("how", ["stopped"])
def test_a_task_with_a_budget_waits_for_redis(
    how: str, stores: Stores, gateway: Gateway, mine: Set, upstream: Upstream
) -> None:
    poor = Client(gateway.url, mine.poor)
    assert poor.call("GET", "/v1/models").status == 200
    worker = Child(stores.environment, "worker")
    try:
        with stores.redis.away(how):
            payload = {"model": mine.model, "messages": HELLO, "max_tokens": 5}
            accepted = poor.call("POST", "/v1/tasks/chat/completions", payload=payload)
            assert accepted.status == 202
            address = accepted.json()["links"]["self"]

            def status() -> Any:
                return poor.call("GET", address).json()

            assert eventually(lambda: status()["status"] == "retrying", within=20, every=0.1)
            assert upstream.requests(mine.model) == []
        found = poor.call("GET", f"{address}?wait=20").json()
        assert (found["status"], found["dead_letter"]) == ("succeeded", None)
        attempts = poor.call("GET", f"{address}/attempts").json()["data"]
        assert {one["outcome"] for one in attempts[:-1]} == {"parked"}
        assert len(upstream.requests(mine.model)) == 1
    finally:
        worker.stop()
