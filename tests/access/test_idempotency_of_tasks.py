"""An Idempotency-Key stands for one task for a day: for whom, for which body, and for how long."""

from uuid import UUID, uuid4

import pytest

from apps.access.errors import IdempotencyKeyReused
from apps.access.idempotency import Claim, claim_for_tasks
from apps.access.models import IdempotencyRecord
from tests.time import age

pytestmark = pytest.mark.django_db

PROJECT = uuid4()


def claim(key: str = "k", digest: str = "d", project: UUID = PROJECT) -> Claim:
    return Claim(project, "/v1/tasks", key, digest)


def test_a_new_key_is_bound_to_its_task() -> None:
    first, second = uuid4(), uuid4()
    assert claim_for_tasks([(claim("a"), first), (claim("b"), second)]) == [first, second]


def test_a_held_key_gives_the_task_it_made_beside_new_ones() -> None:
    first, second, third = uuid4(), uuid4(), uuid4()
    claim_for_tasks([(claim("a"), first)])
    assert claim_for_tasks([(claim("b"), second), (claim("a"), third)]) == [second, first]


def test_of_equal_keys_in_one_call_the_first_wins() -> None:
    first, second = uuid4(), uuid4()
    assert claim_for_tasks([(claim(), first), (claim(), second)]) == [first, first]


def test_another_body_under_a_held_key_is_refused_and_changes_nothing() -> None:
    first = uuid4()
    claim_for_tasks([(claim(), first)])
    assert isinstance(claim_for_tasks([(claim(digest="other"), uuid4())])[0], IdempotencyKeyReused)
    assert claim_for_tasks([(claim(), uuid4())]) == [first]


def test_a_key_is_free_again_after_a_day() -> None:
    first, second = uuid4(), uuid4()
    claim_for_tasks([(claim(), first)])
    age(IdempotencyRecord.objects.get(), hours=23)
    assert claim_for_tasks([(claim(digest="other"), second)]) != [second]
    age(IdempotencyRecord.objects.get(), hours=2)
    assert claim_for_tasks([(claim(digest="other"), second)]) == [second]
    assert claim_for_tasks([(claim(digest="other"), uuid4())]) == [second]


def test_projects_do_not_share_keys() -> None:
    first, second = uuid4(), uuid4()
    claim_for_tasks([(claim(), first)])
    assert claim_for_tasks([(claim(project=uuid4()), second)]) == [second]
