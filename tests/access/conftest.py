"""Callers made of plain values, and a ledger that says what the test wants."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from apps.access import admission
from apps.access.authentication import Caller, Limits
from apps.core import request_context
from apps.core.request_context import RequestContext
from tests.stores import point_redis_at, valkey

__all__ = ["point_redis_at", "valkey"]

NOTHING = Limits()


def a_caller(project: Limits = NOTHING, *, project_id: UUID | None = None, **key_limits: int) -> Caller:
    """A caller whose key has these limits."""
    return Caller(
        key_id=uuid4(),
        project_id=project_id or uuid4(),
        key_prefix="rd_test",
        allowed_models=(),
        key_limits=Limits(**key_limits),
        project_limits=project,
        store_bodies=False,
        body_retention_days=30,
        expires_at=None,
    )


def reply_headers() -> dict[str, str]:
    """Enter a request and return the headers that its reply will have."""
    context = RequestContext("req_test")
    request_context.enter(context)
    return context.reply_headers


class Ledger:
    """What was spent this month, and how often it was asked."""

    def __init__(self, month: str) -> None:
        self.month = month
        self.spent = 0
        self.asked = 0

    def __call__(self, scope: str, scope_id: UUID) -> tuple[str, int]:
        self.asked += 1
        return self.month, self.spent


@pytest.fixture
def ledger(valkey: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """The registered spend source: a ledger whose month is Valkey's."""
    before = admission._spend_source
    source = Ledger(datetime.fromtimestamp(valkey.time()[0], UTC).strftime("%Y-%m"))
    admission.register_spend_source(source)
    yield source
    assert before is not None
    admission.register_spend_source(before)


MakeCaller = Callable[..., Caller]
