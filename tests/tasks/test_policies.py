"""An operator's policy is in force within seconds, field by field, and outlives an outage of Postgres."""

import pytest
from django.db import OperationalError

from apps.tasks import policies
from apps.tasks.kinds import Policy
from apps.tasks.models import RetryPolicy
from tests.tasks.conftest import MakeKind, on_db

pytestmark = pytest.mark.django_db(transaction=True)
DEFAULT = Policy(base=2.0, max_retries=7)


@pytest.fixture(autouse=True)
def _unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "_rows", {})
    monkeypatch.setattr(policies, "_read_at", float("-inf"))


async def test_without_a_row_the_codes_policy_is_in_force(make_kind: MakeKind) -> None:
    kind = make_kind(policy=DEFAULT)
    assert await policies.of(kind) is kind.policy


async def test_a_row_changes_what_it_fills_in_and_no_more(make_kind: MakeKind) -> None:
    kind, other = make_kind(policy=DEFAULT), make_kind(policy=DEFAULT)
    await on_db(RetryPolicy.objects.create)(kind=kind.name, max_retries=0, cap=9.5)
    assert await policies.of(kind) == Policy(base=2.0, max_retries=0, cap=9.5)
    assert await policies.of(other) == DEFAULT


async def test_a_change_is_noticed_when_what_is_known_is_no_longer_fresh(
    make_kind: MakeKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = make_kind(policy=DEFAULT)
    assert await policies.of(kind) == DEFAULT
    await on_db(RetryPolicy.objects.create)(kind=kind.name, base=3.0)
    assert await policies.of(kind) == DEFAULT  # read a moment ago
    monkeypatch.setattr(policies, "FRESH", 0.0)
    assert (await policies.of(kind)).base == 3.0
    await on_db(RetryPolicy.objects.all().delete)()
    assert await policies.of(kind) == DEFAULT


async def test_with_postgres_away_the_policy_known_before_stays(
    make_kind: MakeKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = make_kind(policy=DEFAULT)
    await on_db(RetryPolicy.objects.create)(kind=kind.name, base=3.0)
    assert (await policies.of(kind)).base == 3.0

    def away() -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(policies, "FRESH", 0.0)
    monkeypatch.setattr(policies, "_read", away)
    assert (await policies.of(kind)).base == 3.0
