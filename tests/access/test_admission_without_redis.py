"""Redis away: limits and slots fail open or closed as set, budgets always closed."""

import asyncio
import time
from typing import Any

import pytest
from redis import Redis

from apps.access import admission
from apps.access.admission import admit, look
from apps.core import errors
from tests.access.conftest import Ledger, a_caller, reply_headers
from tests.redis_servers import redis_server, silent
from tests.stores import NOBODY_LISTENS, PointRedisAt

LIMITED = {"requests_per_minute": 1, "tokens_per_minute": 1, "concurrency": 1}


async def test_limits_and_slots_fail_open_by_default(point_redis_at: PointRedisAt) -> None:
    point_redis_at(NOBODY_LISTENS)
    caller = a_caller(**LIMITED)
    for _ in range(3):
        admitted = await admit(caller, tokens=10, nusd=0)
        await admitted.settle(tokens=10, nusd=0)


async def test_limits_fail_closed_where_the_operator_says_so(point_redis_at: PointRedisAt) -> None:
    point_redis_at(NOBODY_LISTENS, limits_fail_open=False)
    with pytest.raises(errors.ServiceUnavailable):
        await admit(a_caller(**LIMITED), tokens=1, nusd=0)


@pytest.mark.parametrize("fail_open", [True, False])
async def test_a_budget_fails_closed_in_any_case(point_redis_at: PointRedisAt, fail_open: bool) -> None:
    point_redis_at(NOBODY_LISTENS, limits_fail_open=fail_open)
    with pytest.raises(errors.ServiceUnavailable, match="budget"):
        await admit(a_caller(monthly_budget_nusd=10**12), tokens=1, nusd=0)


async def test_a_caller_without_limits_is_served(point_redis_at: PointRedisAt) -> None:
    point_redis_at(NOBODY_LISTENS, limits_fail_open=False)
    await admit(a_caller(), tokens=1, nusd=0)


async def test_a_look_without_redis_shows_no_headers(point_redis_at: PointRedisAt) -> None:
    point_redis_at(NOBODY_LISTENS)
    headers = reply_headers()
    await look(a_caller(**LIMITED))
    assert headers == {}


async def test_a_frozen_redis_costs_one_request_its_timeout_and_the_next_ones_nothing(
    point_redis_at: PointRedisAt,
) -> None:
    async with redis_server(silent) as frozen:
        point_redis_at(frozen.url)
        began = time.monotonic()
        await asyncio.gather(*(admit(a_caller(**LIMITED), tokens=1, nusd=0) for _ in range(20)))
        assert time.monotonic() - began < 1
        began = time.monotonic()
        await admit(a_caller(**LIMITED), tokens=1, nusd=0)
        assert time.monotonic() - began < 0.1


async def test_a_settlement_that_redis_missed_makes_the_budget_be_counted_anew(
    ledger: Ledger, valkey: Redis, point_redis_at: PointRedisAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = a_caller(monthly_budget_nusd=1000)
    admitted = await admit(caller, tokens=1, nusd=10)
    connected: Any = admission.pipe()
    point_redis_at(NOBODY_LISTENS)
    await admitted.settle(tokens=1, nusd=900)
    ledger.spent = 900
    monkeypatch.setattr("apps.core.redis._pipe", connected)
    with pytest.raises(errors.BudgetExceeded):
        await admit(caller, tokens=1, nusd=200)
    assert ledger.asked == 2
