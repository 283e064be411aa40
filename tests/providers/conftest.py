"""Upstreams made of plain values at the scripted provider; every test has breakers and models of its own."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

import tests.properties  # noqa: F401 (sets the profile)
from apps.core import request_context
from apps.core.request_context import RequestContext
from apps.providers import circuit_breaker, http
from apps.providers.contract import ProviderConfig, RouteConfig, UpstreamConfig
from tests.stores import point_redis_at, valkey
from tests.upstream import Upstream

__all__ = ["point_redis_at", "valkey"]

MakeUpstream = Callable[..., UpstreamConfig]


@pytest.fixture
def at(upstream: Upstream) -> MakeUpstream:
    """Make an upstream at a provider of its own: `at(breaker_failures=1)`; its model's name is a fresh one."""

    def make(model: str = "", *, weight: int = 1, position: int = 1, **provider: Any) -> UpstreamConfig:
        name = uuid4().hex[:12]
        fields: dict[str, Any] = {
            "id": uuid4(),
            "name": f"p-{name}",
            "kind": "openai_http",
            "base_url": upstream.url,
            "headers": {"Content-Type": "application/json", "Authorization": "Bearer sk-upstream"},
            **provider,
        }
        return UpstreamConfig(ProviderConfig(**fields), model or f"m-{name}", position, weight)

    return make


def a_route(*upstreams: UpstreamConfig, **fields: Any) -> RouteConfig:
    """A route that tries these in this order."""
    ordered = tuple(replace(one, position=place) for place, one in enumerate(upstreams, start=1))
    return RouteConfig("public", ordered, **fields)


@pytest.fixture(autouse=True)
async def _http_ends_with_the_test() -> AsyncIterator[None]:
    request_context.enter(RequestContext("req_test"))
    yield
    await http.close()


@pytest.fixture(autouse=True)
def _no_breaker_is_remembered() -> Iterator[None]:
    yield
    circuit_breaker._known.clear()
