"""Who calls: from memory when known, from Postgres when new or changed."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from apps.access import authentication, keys
from apps.access.authentication import FAILURES_PER_MINUTE, authenticate, forget
from apps.access.models import ApiKey, Limit
from apps.core import config_version, errors
from apps.core.database import in_db
from tests.conftest import MakeKey
from tests.time import age

pytestmark = pytest.mark.django_db(transaction=True)
HERE = "192.0.2.1"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    authentication._known.clear()
    authentication._failures.clear()
    yield
    authentication._known.clear()
    authentication._failures.clear()


async def test_a_caller_is_a_keys_plain_values(make_key: MakeKey) -> None:
    key, secret = await in_db(
        lambda: make_key(10, project_limits={"monthly_budget_usd": "1.5"}, allowed_models=["gpt-*"])
    )
    caller = await authenticate(secret, address=HERE)
    assert (caller.key_id, caller.project_id, caller.key_prefix) == (key.pk, key.project_id, secret[:10])
    assert caller.key_limits.requests_per_minute == 10
    assert caller.project_limits.monthly_budget_nusd == 1_500_000_000
    assert caller.may_use("gpt-4o")
    assert not caller.may_use("claude")


@pytest.mark.parametrize("secret", [None, "", "rd_unknown", "rd_" + "x" * 5000, "\ud800", "rd_\x00"])
async def test_what_is_no_key_is_refused(secret: str | None) -> None:
    with pytest.raises(errors.InvalidApiKey):
        await authenticate(secret, address=HERE)


async def test_a_known_key_is_served_from_memory(make_key: MakeKey) -> None:
    key, secret = await in_db(make_key)
    await config_version.check()
    first = await authenticate(secret, address=HERE)
    await in_db(ApiKey.objects.filter(pk=key.pk).update, name="other")
    assert await authenticate(secret, address=HERE) is first


@pytest.mark.parametrize("change", ["disable", "rotate", "delete", "limit"])
async def test_a_changed_key_is_noticed_at_the_next_look_at_the_version(make_key: MakeKey, change: str) -> None:
    key, secret = await in_db(make_key)
    await config_version.check()
    await authenticate(secret, address=HERE)
    verbs: dict[str, Any] = {
        "disable": lambda: keys.set_disabled(key=key, disabled=True),
        "rotate": lambda: keys.rotate(key=key, overlap=timedelta(0)),
        "delete": lambda: key.delete(),
        "limit": lambda: Limit.objects.filter(api_key=key).update(requests_per_minute=3),
    }
    await in_db(verbs[change])
    assert await config_version.check()
    if change == "limit":
        assert (await authenticate(secret, address=HERE)).key_limits.requests_per_minute == 3
    else:
        with pytest.raises(errors.InvalidApiKey):
            await authenticate(secret, address=HERE)


async def test_an_expired_key_is_refused_even_from_memory(make_key: MakeKey) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    _, secret = await in_db(lambda: make_key(expires_at=soon))
    await config_version.check()
    await authenticate(secret, address=HERE)
    known = authentication._known[keys.digest(secret)]
    known.caller = replace(known.caller, expires_at=datetime.now(UTC).timestamp() - 1)
    with pytest.raises(errors.InvalidApiKey):
        await authenticate(secret, address=HERE)


async def test_an_expired_key_is_refused_by_its_row(make_key: MakeKey) -> None:
    key, secret = await in_db(lambda: make_key(expires_at=datetime.now(UTC) + timedelta(hours=1)))
    await in_db(age, key, hours=2)
    with pytest.raises(errors.InvalidApiKey):
        await authenticate(secret, address=HERE)


async def test_the_old_secret_of_a_rotated_key_is_the_same_caller_until_its_end(make_key: MakeKey) -> None:
    key, old = await in_db(make_key)
    new = await in_db(keys.rotate, key=key, overlap=timedelta(hours=1))
    by_old, by_new = [await authenticate(secret, address=HERE) for secret in (old, new)]
    assert by_old.project_id == by_new.project_id
    assert by_new.expires_at is None
    assert by_old.expires_at is not None
    assert by_old.expires_at > datetime.now(UTC).timestamp() + 3500


async def test_memory_holds_so_many_keys_and_forgets_the_oldest(
    make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "MAX_CACHED", 2)
    secrets = [(await in_db(make_key))[1] for _ in range(3)]
    for secret in secrets:
        await authenticate(secret, address=HERE)
    assert list(authentication._known) == [keys.digest(secret) for secret in secrets[1:]]


async def test_an_address_that_guesses_is_answered_429_without_a_look() -> None:
    for number in range(FAILURES_PER_MINUTE):
        with pytest.raises(errors.InvalidApiKey):
            await authenticate(f"rd_guess{number}", address=HERE)
    with pytest.raises(errors.RateLimitExceeded) as refused:
        await authenticate("rd_another", address=HERE)
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after <= 60
    with pytest.raises(errors.InvalidApiKey):
        await authenticate("rd_another", address="192.0.2.2")


async def test_a_known_key_works_from_an_address_that_guessed(make_key: MakeKey) -> None:
    _, secret = await in_db(make_key)
    await config_version.check()
    await authenticate(secret, address=HERE)
    for number in range(FAILURES_PER_MINUTE + 1):
        with pytest.raises((errors.InvalidApiKey, errors.RateLimitExceeded)):
            await authenticate(f"rd_guess{number}", address=HERE)
    await authenticate(secret, address=HERE)


async def test_a_secret_that_was_accepted_before_is_no_guess_when_it_is_refused(make_key: MakeKey) -> None:
    key, secret = await in_db(make_key)
    await authenticate(secret, address=HERE)
    await in_db(keys.set_disabled, key=key, disabled=True)
    forget()
    for _ in range(FAILURES_PER_MINUTE + 1):
        with pytest.raises(errors.InvalidApiKey):
            await authenticate(secret, address=None)
    assert authentication._failures == {}


async def test_so_many_addresses_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "MAX_ADDRESSES", 3)
    for number in range(5):
        with pytest.raises(errors.InvalidApiKey):
            await authenticate(None, address=f"192.0.2.{number}")
    assert len(authentication._failures) == 3


async def test_forgetting_looks_every_key_up_again(make_key: MakeKey) -> None:
    _, secret = await in_db(make_key)
    await config_version.check()
    first = await authenticate(secret, address=HERE)
    forget()
    second = await authenticate(secret, address=HERE)
    assert second == first
    assert second is not first
