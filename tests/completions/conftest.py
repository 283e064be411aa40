"""Requests and their money, made of plain values."""

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

import tests.properties  # noqa: F401 (sets the profile)
from apps.access.admission import Admission
from apps.access.authentication import Caller, Limits
from apps.completions.ledger import Purpose
from apps.completions.spending import Spending
from apps.providers.contract import Attempt, ProviderConfig, RouteConfig, UpstreamConfig
from tests.stores import point_redis_at, valkey

__all__ = ["point_redis_at", "valkey"]

UPSTREAM = UpstreamConfig(ProviderConfig(uuid4(), "test-provider", "openai_http", "http://x/v1", {}), "gpt-4o-mini")
ROUTE = RouteConfig("public", (UPSTREAM,), input_nusd=100, output_nusd=1000)
MakePurpose = Callable[..., Purpose]


def a_purpose(*, route: RouteConfig = ROUTE, end_user: str = "", stream: bool = False, **caller: Any) -> Purpose:
    """Whose request it is."""
    fields: dict[str, Any] = {
        "key_id": uuid4(),
        "project_id": uuid4(),
        "key_prefix": "rd_test",
        "allowed_models": (),
        "key_limits": Limits(),
        "project_limits": Limits(),
        "store_bodies": False,
        "body_retention_days": 30,
        "expires_at": None,
        **caller,
    }
    return Purpose(Caller(**fields), route, "chat/completions", end_user, stream)


def an_attempt(**fields: Any) -> Attempt:
    """One upstream request that went well."""
    return Attempt(
        **{
            "number": 1,
            "upstream": UPSTREAM,
            "started": time.monotonic() - 0.5,
            "latency": 0.5,
            "status": 200,
            **fields,
        }
    )


@pytest.fixture
def spending() -> Spending:
    """A request without limits."""
    return Spending(a_purpose(stream=True), Admission([], 0, 0, "lease"), input_tokens=7, output_tokens=100)
