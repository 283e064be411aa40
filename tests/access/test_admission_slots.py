"""Slots: so many requests at the same time, as leases that end."""

import asyncio
from typing import Any

import pytest
from redis import Redis

from apps.access import admission
from apps.access.admission import admit, checks_for
from apps.core import errors
from apps.core.redis import ScriptPipe
from tests.access.conftest import a_caller
from tests.races import together

pytestmark = pytest.mark.usefixtures("valkey")


async def test_eight_requests_on_three_slots_let_three_in() -> None:
    caller = a_caller(concurrency=3)
    answers = await asyncio.gather(*(admit(caller, tokens=1, nusd=0) for _ in range(8)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, Exception)]
    assert len(refused) == 5
    assert all(isinstance(error, errors.RateLimitExceeded) and error.retry_after == 1 for error in refused)


def test_eight_processes_on_three_slots_let_three_in(settings: Any) -> None:
    caller = a_caller(concurrency=3)
    (check,) = checks_for(caller, "")

    def ask(number: int) -> bytes:
        async def once() -> bytes:
            pipe = ScriptPipe(settings.REDRIVE.redis_url, timeout=5)
            answer = await pipe.run(admission._ADMIT, [check.key], [f"lease{number}", 60_000, 1, 0, "c", 3])
            status: bytes = answer[0]
            return status

        return asyncio.run(once())

    answers = together(8, ask)
    assert sorted(answers, key=str) == [b"ok"] * 3 + [b"refused"] * 5


async def test_a_settled_request_frees_its_slot() -> None:
    caller = a_caller(concurrency=1)
    for _ in range(3):
        admitted = await admit(caller, tokens=1, nusd=0)
        with pytest.raises(errors.RateLimitExceeded, match="requests at a time"):
            await admit(caller, tokens=1, nusd=0)
        await admitted.settle(tokens=1, nusd=0)


async def test_settling_twice_does_not_free_somebody_elses_slot() -> None:
    caller = a_caller(concurrency=2)
    first = await admit(caller, tokens=1, nusd=0)
    await admit(caller, tokens=1, nusd=0)
    await first.settle(tokens=1, nusd=0)
    await admit(caller, tokens=1, nusd=0)
    await first.settle(tokens=1, nusd=0)
    with pytest.raises(errors.RateLimitExceeded):
        await admit(caller, tokens=1, nusd=0)


async def test_the_slot_of_a_killed_process_is_free_after_its_lease(valkey: Redis) -> None:
    caller = a_caller(concurrency=1)
    await admit(caller, tokens=1, nusd=0)
    key = checks_for(caller, "")[0].key
    leases: Any = valkey.zrange(key, 0, -1)
    valkey.zincrby(key, -(admission.LEASE + 1) * 1_000_000, leases[0])
    await admit(caller, tokens=1, nusd=0)
    assert valkey.zcard(key) == 1


async def test_a_slot_is_held_longer_than_a_call_may_take(valkey: Redis) -> None:
    caller = a_caller(concurrency=1)
    await admit(caller, tokens=1, nusd=0)
    key = checks_for(caller, "")[0].key
    leases: Any = valkey.zrange(key, 0, -1)
    valkey.zincrby(key, -600 * 1_000_000, leases[0])
    with pytest.raises(errors.RateLimitExceeded):
        await admit(caller, tokens=1, nusd=0)
