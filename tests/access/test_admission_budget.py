"""Monthly budgets: reserved, settled, and rebuilt from the ledger where Redis does not know them."""

import asyncio
from typing import Any

import pytest
from redis import Redis

from apps.access import admission
from apps.access.admission import admit, checks_for
from apps.access.authentication import Caller, Limits
from apps.core import errors
from tests.access.conftest import Ledger, a_caller


def key_of(caller: Caller) -> str:
    """The budget's key in Redis."""
    return next(check.key for check in checks_for(caller, "") if check.kind == "b")


def money(valkey: Redis, caller: Caller) -> tuple[int, int]:
    """(spent, reserved) in nano-USD."""
    found: Any = valkey.hmget(key_of(caller), "spent", "reserved")
    return int(found[0]), int(found[1])


async def test_what_the_ledger_holds_counts_before_the_first_request(ledger: Ledger) -> None:
    ledger.spent = 100
    with pytest.raises(errors.BudgetExceeded, match="This API key") as refused:
        await admit(a_caller(monthly_budget_nusd=100), tokens=1, nusd=1)
    assert refused.value.should_retry is False


async def test_a_request_reserves_what_it_may_cost_and_settles_what_it_did(ledger: Ledger, valkey: Redis) -> None:
    caller = a_caller(monthly_budget_nusd=1000)
    admitted = await admit(caller, tokens=1, nusd=600)
    assert money(valkey, caller) == (0, 600)
    with pytest.raises(errors.BudgetExceeded):
        await admit(caller, tokens=1, nusd=600)
    await admitted.settle(tokens=1, nusd=50)
    assert money(valkey, caller) == (50, 0)
    await admit(caller, tokens=1, nusd=950)


async def test_settling_twice_counts_once(ledger: Ledger, valkey: Redis) -> None:
    caller = a_caller(monthly_budget_nusd=1000)
    admitted = await admit(caller, tokens=1, nusd=600)
    await admitted.settle(tokens=1, nusd=50)
    await admitted.settle(tokens=1, nusd=50)
    assert money(valkey, caller) == (50, 0)


async def test_two_requests_of_the_same_price_are_two_reservations(ledger: Ledger, valkey: Redis) -> None:
    caller = a_caller(monthly_budget_nusd=1000)
    first, second = [await admit(caller, tokens=1, nusd=100) for _ in range(2)]
    assert money(valkey, caller) == (0, 200)
    await first.settle(tokens=1, nusd=70)
    assert money(valkey, caller) == (70, 100)
    await second.settle(tokens=1, nusd=0)
    assert money(valkey, caller) == (70, 0)


async def test_twenty_requests_at_once_never_reserve_more_than_the_budget(ledger: Ledger, valkey: Redis) -> None:
    caller = a_caller(monthly_budget_nusd=1000)
    answers = await asyncio.gather(*(admit(caller, tokens=1, nusd=300) for _ in range(20)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, Exception)]
    assert len(refused) == 17
    assert {type(error) for error in refused} == {errors.BudgetExceeded}
    assert money(valkey, caller) == (0, 900)
    assert ledger.asked == 1


async def test_flushall_gives_no_money_back(ledger: Ledger, valkey: Redis) -> None:
    caller = a_caller(monthly_budget_nusd=1000)
    await (await admit(caller, tokens=1, nusd=10)).settle(tokens=1, nusd=900)
    ledger.spent = 900
    valkey.flushdb()
    with pytest.raises(errors.BudgetExceeded):
        await admit(caller, tokens=1, nusd=200)
    assert ledger.asked == 2


async def test_a_new_month_begins_with_what_its_ledger_holds(ledger: Ledger, valkey: Redis) -> None:
    caller = a_caller(monthly_budget_nusd=1000)
    await (await admit(caller, tokens=1, nusd=10)).settle(tokens=1, nusd=1000)
    with pytest.raises(errors.BudgetExceeded):
        await admit(caller, tokens=1, nusd=1)
    valkey.hset(key_of(caller), "month", "2001-01")
    ledger.spent = 5
    await admit(caller, tokens=1, nusd=10)
    assert money(valkey, caller) == (5, 10)
    assert valkey.hget(key_of(caller), "month") == ledger.month.encode()


async def test_the_month_of_redis_is_the_utc_month(ledger: Ledger, valkey: Redis) -> None:
    caller = a_caller(monthly_budget_nusd=1000)
    await admit(caller, tokens=1, nusd=10)
    await admit(caller, tokens=1, nusd=10)
    assert ledger.asked == 1  # the month that the ledger named is the one that the script counts in


async def test_the_reservation_of_a_killed_process_is_returned_after_its_lease(ledger: Ledger, valkey: Redis) -> None:
    caller = a_caller(monthly_budget_nusd=1000)
    lost = await admit(caller, tokens=1, nusd=900)
    leases = f"{key_of(caller)}:leases"
    valkey.zincrby(leases, -(admission.LEASE + 1) * 1_000_000, f"{lost.lease}:900")
    await admit(caller, tokens=1, nusd=800)
    assert money(valkey, caller) == (0, 800)
    assert valkey.zcard(leases) == 1


async def test_a_late_settlement_after_its_lease_still_counts_the_money_once(ledger: Ledger, valkey: Redis) -> None:
    caller = a_caller(monthly_budget_nusd=1000)
    late = await admit(caller, tokens=1, nusd=900)
    valkey.zincrby(f"{key_of(caller)}:leases", -(admission.LEASE + 1) * 1_000_000, f"{late.lease}:900")
    other = await admit(caller, tokens=1, nusd=100)
    await late.settle(tokens=1, nusd=300)
    await other.settle(tokens=1, nusd=100)
    assert money(valkey, caller) == (400, 0)


async def test_a_loader_that_died_is_replaced_after_five_seconds(ledger: Ledger, valkey: Redis) -> None:
    caller = a_caller(monthly_budget_nusd=1000)
    seconds: Any = valkey.time()
    valkey.hset(
        key_of(caller),
        mapping={"loading": "a-dead-one", "loading_since": seconds[0] - 6, "spent": 0, "reserved": 0},
    )
    await admit(caller, tokens=1, nusd=10)
    assert money(valkey, caller) == (0, 10)
    assert ledger.asked == 1


async def test_a_running_loader_is_waited_for_and_then_the_request_may_come_again(
    ledger: Ledger, valkey: Redis
) -> None:
    caller = a_caller(monthly_budget_nusd=1000)
    seconds: Any = valkey.time()
    valkey.hset(
        key_of(caller),
        mapping={"loading": "another", "loading_since": seconds[0] + 60, "spent": 0, "reserved": 0},
    )
    with pytest.raises(errors.ServiceUnavailable):
        await admit(caller, tokens=1, nusd=10)
    assert ledger.asked == 0


async def test_what_is_settled_while_the_ledger_is_read_is_not_lost(ledger: Ledger, valkey: Redis) -> None:
    caller = a_caller(monthly_budget_nusd=1000)
    admitted = await admit(caller, tokens=1, nusd=100)
    valkey.flushdb()
    waiting = asyncio.ensure_future(admit(caller, tokens=1, nusd=10))
    while not valkey.exists(key_of(caller)):
        await asyncio.sleep(0.01)
    await admitted.settle(tokens=1, nusd=70)
    await waiting
    assert money(valkey, caller) == (70, 10)


async def test_an_answer_dearer_than_reserved_is_counted_in_full(ledger: Ledger, valkey: Redis) -> None:
    caller = a_caller(monthly_budget_nusd=1000)
    admitted = await admit(caller, tokens=1, nusd=1)
    await admitted.settle(tokens=1, nusd=5000)
    with pytest.raises(errors.BudgetExceeded):
        await admit(caller, tokens=1, nusd=0)


async def test_a_free_request_passes_until_the_budget_is_used_up(ledger: Ledger) -> None:
    caller = a_caller(monthly_budget_nusd=100)
    await admit(caller, tokens=1, nusd=0)
    ledger.spent = 100
    with pytest.raises(errors.BudgetExceeded):
        await admit(a_caller(monthly_budget_nusd=100), tokens=1, nusd=0)


async def test_a_budget_of_nothing_refuses_every_request(ledger: Ledger) -> None:
    with pytest.raises(errors.BudgetExceeded):
        await admit(a_caller(monthly_budget_nusd=0), tokens=1, nusd=0)


async def test_the_budgets_of_key_and_project_are_checked_together(ledger: Ledger, valkey: Redis) -> None:
    caller = a_caller(Limits(monthly_budget_nusd=150), monthly_budget_nusd=1000)
    await admit(caller, tokens=1, nusd=100)
    with pytest.raises(errors.BudgetExceeded, match="This project"):
        await admit(caller, tokens=1, nusd=100)
    assert money(valkey, caller) == (0, 100)
    assert ledger.asked == 2


async def test_great_sums_keep_every_digit(ledger: Ledger, valkey: Redis) -> None:
    # The script counts in doubles: whole numbers up to 9 million dollars in nano-USD are exact.
    caller = a_caller(monthly_budget_nusd=9_000_000 * 1_000_000_000)
    admitted = await admit(caller, tokens=1, nusd=8_999_999_999_999_999)
    assert money(valkey, caller) == (0, 8_999_999_999_999_999)
    await admitted.settle(tokens=1, nusd=1)
    assert money(valkey, caller) == (1, 0)
