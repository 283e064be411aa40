"""The keys of live calls in one process: renewed while they run, given up whatever becomes of them."""

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from apps.access import idempotency, replays
from apps.access.idempotency import Claim, Lease, Replay
from apps.access.models import IdempotencyRecord
from apps.core import request_context
from apps.core.database import in_db
from apps.core.errors import ServiceUnavailable
from apps.core.request_context import RequestContext
from tests.time import age

pytestmark = pytest.mark.django_db(transaction=True)


def a_claim() -> Claim:
    return Claim(uuid4(), "/v1/x", "k", "digest")


def on_db(verb: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    return functools.partial(in_db, verb)


def the_record() -> IdempotencyRecord:
    return IdempotencyRecord.objects.get()


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    assert replays.settlements().flush(5)
    assert replays._held == {}


async def taken(claim: Claim) -> Lease:
    begun = await replays.begin(claim)
    assert isinstance(begun, Lease)
    return begun


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await look():
            await asyncio.sleep(0.02)


async def test_a_call_that_runs_keeps_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "RENEW_EVERY", 0.02)
    claim, other = a_claim(), a_claim()
    lease = await taken(claim)
    row = await on_db(the_record)()
    await on_db(age)(row, seconds=20)

    async def renewed() -> bool:
        return bool((await on_db(the_record)()).lease_until > row.lease_until)

    await until(renewed)
    await replays.settle(lease, b"{}")
    assert await replays.begin(claim) == Replay(b"{}")
    await replays.settle(await taken(other), None)


async def test_the_renewals_of_all_calls_are_not_the_first_ones_work(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[RequestContext | None] = []
    renew = idempotency.renew

    def watched(leases: list[Lease]) -> None:
        seen.append(request_context.current_or_none())
        renew(leases)

    monkeypatch.setattr(idempotency, "renew", watched)
    monkeypatch.setattr(replays, "RENEW_EVERY", 0.02)
    request_context.enter(RequestContext("req_first"))
    lease = await taken(a_claim())

    async def renewed() -> bool:
        return bool(seen)

    await until(renewed)
    await replays.settle(lease, None)
    assert set(seen) == {None}


async def test_a_key_is_free_before_its_caller_hears_of_the_failure() -> None:
    claim = a_claim()
    for _ in range(3):
        await replays.settle(await taken(claim), None)
    await replays.settle(await taken(claim), b"{}")


async def test_a_caller_who_leaves_while_the_key_is_taken_leaves_it_free(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, go_on, taken_late, begin = threading.Event(), threading.Event(), threading.Event(), idempotency.begin

    def slowly(claim: Claim) -> Lease | Replay:
        entered.set()
        assert go_on.wait(10)
        begun = begin(claim)
        taken_late.set()
        return begun

    monkeypatch.setattr(idempotency, "begin", slowly)
    claim = a_claim()
    waiting = asyncio.ensure_future(replays.begin(claim))
    assert await asyncio.to_thread(entered.wait, 10)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    assert await asyncio.to_thread(taken_late.wait, 10)
    monkeypatch.setattr(idempotency, "begin", begin)

    async def free() -> bool:
        return not await on_db(IdempotencyRecord.objects.exists)()

    await until(free)
    await replays.settle(await taken(claim), None)


async def test_a_reply_is_kept_though_its_caller_leaves_meanwhile() -> None:
    claim = a_claim()
    lease = await taken(claim)
    settling = asyncio.ensure_future(replays.settle(lease, b"{}"))
    await asyncio.sleep(0)
    settling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await settling
    assert await asyncio.to_thread(replays.settlements().flush, 5)
    assert await replays.begin(claim) == Replay(b"{}")
    await asyncio.sleep(0)


async def test_a_lease_that_was_lost_is_no_trouble_of_the_caller() -> None:
    claim = a_claim()
    lease = await taken(claim)
    await on_db(IdempotencyRecord.objects.all().delete)()
    await replays.settle(lease, b"{}")
    assert not await on_db(IdempotencyRecord.objects.exists)()


async def test_no_key_is_taken_while_too_many_ends_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays.settlements(), "_backlog", 0)
    with pytest.raises(ServiceUnavailable):
        await replays.begin(a_claim())
