"""Requests and tokens a minute: token buckets by Valkey's clock."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from redis import Redis

from apps.access.admission import END_USER_BUCKETS, admit, checks_for, look
from apps.access.authentication import Limits
from apps.core import errors
from tests.access.conftest import a_caller, reply_headers

pytestmark = pytest.mark.usefixtures("valkey")
MINUTE = 60_000_000  # microseconds


def let_pass(valkey: Redis, key: str, seconds: float) -> None:
    """Age a bucket."""
    full_at: Any = valkey.get(key)
    valkey.set(key, int(float(full_at) - seconds * 1_000_000))


async def test_ten_requests_pass_at_once_and_the_eleventh_is_refused() -> None:
    caller = a_caller(requests_per_minute=10)
    for _ in range(10):
        await admit(caller, tokens=1, nusd=0)
    with pytest.raises(errors.RateLimitExceeded) as refused:
        await admit(caller, tokens=1, nusd=0)
    assert refused.value.retry_after == pytest.approx(6, abs=1.5)
    assert refused.value.details == {"scope": "key", "limit": 10, "unit": "requests a minute"}


async def test_a_refused_request_is_not_counted() -> None:
    caller = a_caller(requests_per_minute=2)
    for _ in range(2):
        await admit(caller, tokens=1, nusd=0)
    waits = []
    for _ in range(5):
        with pytest.raises(errors.RateLimitExceeded) as refused:
            await admit(caller, tokens=1, nusd=0)
        waits.append(refused.value.retry_after or 0)
    assert max(waits) <= 30.01


async def test_a_bucket_refills_one_request_at_a_time(valkey: Redis) -> None:
    caller = a_caller(requests_per_minute=10)
    for _ in range(10):
        await admit(caller, tokens=1, nusd=0)
    let_pass(valkey, checks_for(caller, "")[0].key, 6)
    await admit(caller, tokens=1, nusd=0)
    with pytest.raises(errors.RateLimitExceeded):
        await admit(caller, tokens=1, nusd=0)


async def test_a_bucket_never_holds_more_than_its_limit(valkey: Redis) -> None:
    caller = a_caller(requests_per_minute=3)
    await admit(caller, tokens=1, nusd=0)
    let_pass(valkey, checks_for(caller, "")[0].key, 3600)
    for _ in range(3):
        await admit(caller, tokens=1, nusd=0)
    with pytest.raises(errors.RateLimitExceeded):
        await admit(caller, tokens=1, nusd=0)


async def test_forty_requests_at_once_pass_exactly_as_often_as_the_limit_says() -> None:
    caller = a_caller(requests_per_minute=10)
    answers = await asyncio.gather(*(admit(caller, tokens=1, nusd=0) for _ in range(40)), return_exceptions=True)
    assert sum(not isinstance(answer, Exception) for answer in answers) == 10
    assert {type(answer) for answer in answers if isinstance(answer, Exception)} == {errors.RateLimitExceeded}


async def test_tokens_are_reserved_until_the_limit_is_reached() -> None:
    caller = a_caller(tokens_per_minute=1000)
    await admit(caller, tokens=600, nusd=0)
    with pytest.raises(errors.RateLimitExceeded) as refused:
        await admit(caller, tokens=600, nusd=0)
    assert refused.value.retry_after == pytest.approx(12, abs=2)
    await admit(caller, tokens=400, nusd=0)


async def test_unused_tokens_are_given_back() -> None:
    caller = a_caller(tokens_per_minute=1000)
    admission = await admit(caller, tokens=900, nusd=0)
    await admission.settle(tokens=100, nusd=0)
    await admit(caller, tokens=890, nusd=0)


async def test_more_tokens_than_reserved_become_a_debt() -> None:
    caller = a_caller(tokens_per_minute=1000)
    admission = await admit(caller, tokens=100, nusd=0)
    await admission.settle(tokens=1500, nusd=0)
    with pytest.raises(errors.RateLimitExceeded) as refused:
        await admit(caller, tokens=1, nusd=0)
    assert refused.value.retry_after == pytest.approx(30, abs=2)


async def test_a_debt_is_at_most_a_minute_beyond_the_bucket() -> None:
    caller = a_caller(tokens_per_minute=1000)
    admission = await admit(caller, tokens=100, nusd=0)
    await admission.settle(tokens=1_000_000, nusd=0)
    with pytest.raises(errors.RateLimitExceeded) as refused:
        await admit(caller, tokens=1, nusd=0)
    assert refused.value.retry_after is not None
    assert 55 < refused.value.retry_after <= 61


async def test_a_request_greater_than_the_whole_limit_is_told_not_to_come_again() -> None:
    caller = a_caller(tokens_per_minute=1000)
    with pytest.raises(errors.RateLimitExceeded) as refused:
        await admit(caller, tokens=1001, nusd=0)
    assert refused.value.should_retry is False
    assert refused.value.retry_after is None
    await admit(caller, tokens=1000, nusd=0)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"requests_per_minute": 5}, {"tokens_per_minute": 10}),
        ({"tokens_per_minute": 100}, {"requests_per_minute": 1}),
        ({"concurrency": 5}, {"tokens_per_minute": 10}),
    ],
)
async def test_a_refusal_by_one_limit_spends_nothing_of_the_others(
    valkey: Redis, first: dict[str, int], then: dict[str, int]
) -> None:
    project_id = uuid4()
    caller = a_caller(Limits(**then), project_id=project_id, **first)
    if "requests_per_minute" in then:
        await admit(a_caller(Limits(**then), project_id=project_id), tokens=1, nusd=0)
    with pytest.raises(errors.RateLimitExceeded):
        await admit(caller, tokens=50, nusd=0)
    assert not valkey.exists(checks_for(caller, "")[0].key)


async def test_keys_of_one_project_share_its_limit_and_not_each_others() -> None:
    project_id, project = uuid4(), Limits(requests_per_minute=3)
    one = a_caller(project, project_id=project_id, requests_per_minute=2)
    other = a_caller(project, project_id=project_id, requests_per_minute=2)
    for caller in (one, one, other):
        await admit(caller, tokens=1, nusd=0)
    with pytest.raises(errors.RateLimitExceeded, match="This project"):
        await admit(other, tokens=1, nusd=0)
    with pytest.raises(errors.RateLimitExceeded, match="This API key"):
        await admit(one, tokens=1, nusd=0)


async def test_an_end_user_has_a_bucket_of_its_own_beside_the_keys() -> None:
    caller = a_caller(requests_per_minute=5, end_user_requests_per_minute=2)
    for user in ("anna", "anna", "bert"):
        await admit(caller, tokens=1, nusd=0, end_user=user)
    with pytest.raises(errors.RateLimitExceeded, match="This end user"):
        await admit(caller, tokens=1, nusd=0, end_user="anna")
    for _ in range(2):
        await admit(caller, tokens=1, nusd=0)
    with pytest.raises(errors.RateLimitExceeded, match="This API key"):
        await admit(caller, tokens=1, nusd=0, end_user="carl")


def test_invented_end_users_cannot_make_more_than_ten_thousand_buckets() -> None:
    caller = a_caller(end_user_requests_per_minute=2)
    keys = {checks_for(caller, f"user {number}")[0].key for number in range(30_000)}
    assert len(keys) <= END_USER_BUCKETS == 10_000


@pytest.mark.parametrize("name", ["a" * 256, "\ud800", "\x00", "日本"])
async def test_any_end_users_name_makes_a_bucket(name: str) -> None:
    await admit(a_caller(end_user_requests_per_minute=2), tokens=1, nusd=0, end_user=name)


async def test_a_look_spends_nothing(valkey: Redis) -> None:
    caller = a_caller(requests_per_minute=2, tokens_per_minute=100, concurrency=1, monthly_budget_nusd=5)
    headers = reply_headers()
    for _ in range(5):
        await look(caller)
    assert headers["x-ratelimit-remaining-requests"] == "2"
    assert headers["x-ratelimit-remaining-tokens"] == "100"
    assert not valkey.keys("*")


async def test_a_caller_without_limits_needs_no_redis(valkey: Redis) -> None:
    admission = await admit(a_caller(), tokens=10**9, nusd=10**18)
    await admission.settle(tokens=1, nusd=1)
    assert not valkey.keys("*")


async def test_every_key_of_a_request_lies_in_one_cluster_slot(valkey: Redis) -> None:
    limits: dict[str, int] = {"requests_per_minute": 9, "tokens_per_minute": 9, "concurrency": 9}
    caller = a_caller(Limits(**limits), **limits, end_user_requests_per_minute=3)
    tags = {check.key.split("{")[1].split("}")[0] for check in checks_for(caller, "anna")}
    assert tags == {caller.project_id.hex}


async def test_what_redis_holds_of_a_limit_ends_by_itself(valkey: Redis) -> None:
    caller = a_caller(requests_per_minute=9, tokens_per_minute=9, concurrency=9)
    await admit(caller, tokens=1, nusd=0)
    lifetimes: list[Any] = [valkey.pttl(check.key) for check in checks_for(caller, "")]
    assert all(0 < lifetime <= 662_000 for lifetime in lifetimes)
