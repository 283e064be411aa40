"""One store of Idempotency-Keys: of equal requests one runs, its reply is kept, and no key is held for ever."""

from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.fernet import Fernet
from django.core.management import call_command
from django.db import IntegrityError, connection
from django.utils import timezone

from apps.access import idempotency
from apps.access.errors import IdempotencyInProgress, IdempotencyKeyReused
from apps.access.idempotency import Claim, Lease, Replay, begin, prune, renew, settle
from apps.access.models import IdempotencyRecord
from apps.core.errors import Conflict, InvalidRequest
from tests.races import together
from tests.time import age

pytestmark = pytest.mark.django_db(transaction=True)
REPLY = '{"text":"日本 secret words"}'.encode()


def a_claim(key: str = "k", *, body: bytes = b"{}", project_id: UUID | None = None, route: str = "/v1/x") -> Claim:
    made = idempotency.claim(project_id or uuid4(), route, key, body)
    assert made is not None
    return made


def take(claim: Claim) -> Lease:
    begun = begin(claim)
    assert isinstance(begun, Lease)
    return begun


def record(claim: Claim) -> IdempotencyRecord:
    return IdempotencyRecord.objects.get(project_id=claim.project_id, route=claim.route, key=claim.key)


@pytest.mark.parametrize(
    ("header", "key"), [("a", "a"), ('"a"', "a"), (" a b ", "a b"), ('"é"', "é"), ("x" * 255, "x" * 255)]
)
def test_a_key_is_bare_or_quoted(header: str, key: str) -> None:
    assert a_claim(header).key == key


@pytest.mark.parametrize("header", ["", " ", '""', '"', 'a"b', "x" * 256, "a\x00b", "a\tb", '"a" b'])
def test_what_is_no_key_is_refused_by_name(header: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        idempotency.claim(uuid4(), "/v1/x", header, b"")
    assert refused.value.param == "Idempotency-Key"


def test_the_first_runs_and_the_next_are_given_its_reply() -> None:
    claim = a_claim()
    lease = take(claim)
    with pytest.raises(IdempotencyInProgress) as refused:
        begin(claim)
    assert (refused.value.status, refused.value.retry_after) == (409, 1)
    assert settle([(lease, REPLY)]) == [True]
    assert begin(claim) == begin(claim) == Replay(REPLY)


def test_a_reply_is_kept_encrypted() -> None:
    claim = a_claim()
    settle([(take(claim), REPLY)])
    with connection.cursor() as cursor:
        cursor.execute("SELECT reply FROM access_idempotencyrecord")
        stored = cursor.fetchone()[0]
    assert stored
    assert "secret" not in stored
    assert record(claim).reply == REPLY.decode()


def test_a_failure_frees_the_key() -> None:
    claim = a_claim()
    assert settle([(take(claim), None)]) == [True]
    assert not IdempotencyRecord.objects.exists()
    take(claim)


def test_another_body_is_refused_while_the_first_runs_and_after_it() -> None:
    claim = a_claim()
    other = a_claim(body=b"[]", project_id=claim.project_id)
    lease = take(claim)
    for reply in (None, REPLY):
        with pytest.raises(IdempotencyKeyReused):
            begin(other)
        if reply is None:
            settle([(lease, REPLY)])


def test_projects_routes_and_keys_do_not_meet() -> None:
    claim = a_claim()
    for other in (
        a_claim(),
        a_claim("other", project_id=claim.project_id),
        a_claim(project_id=claim.project_id, route="/v1/y"),
    ):
        take(other)
    take(claim)


def test_a_lease_that_ran_out_is_taken_over_and_its_holder_changes_nothing_any_more() -> None:
    claim = a_claim()
    first = take(claim)
    age(record(claim), seconds=idempotency.LEASE + 1)
    second = take(claim)
    assert settle([(first, b'{"a":1}')]) == [False]
    assert settle([(first, None)]) == [False]
    renew([first])
    with pytest.raises(IdempotencyInProgress):
        begin(claim)
    assert settle([(second, REPLY)]) == [True]
    assert begin(claim) == Replay(REPLY)


def test_a_renewed_lease_is_not_taken_over() -> None:
    claim, other = a_claim(), a_claim()
    leases = [take(claim), take(other)]
    age(record(claim), seconds=idempotency.LEASE - 1)
    renew(leases)
    assert record(claim).lease_until - timezone.now() > timedelta(seconds=idempotency.LEASE - 5)  # type: ignore[operator]
    with pytest.raises(IdempotencyInProgress):
        begin(claim)


def test_a_key_is_free_again_after_a_day() -> None:
    claim = a_claim()
    settle([(take(claim), REPLY)])
    age(record(claim), hours=23.9)
    assert begin(claim) == Replay(REPLY)
    age(record(claim), hours=0.2)
    take(a_claim(body=b"other", project_id=claim.project_id))


def test_a_reply_too_large_to_keep_is_not_paid_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "MAX_REPLY", 10)
    claim = a_claim()
    assert settle([(take(claim), b"x" * 11)]) == [True]
    with pytest.raises(Conflict, match="not kept") as refused:
        begin(claim)
    assert refused.value.should_retry is False


def test_a_reply_that_no_key_opens_any_more_is_not_paid_for_twice(settings: Any) -> None:
    claim = a_claim()
    settle([(take(claim), REPLY)])
    settings.REDRIVE = settings.REDRIVE.model_copy(update={"encryption_keys": [Fernet.generate_key().decode()]})
    with pytest.raises(Conflict, match="not kept"):
        begin(claim)


def test_replies_follow_the_ring_when_it_is_rotated(settings: Any) -> None:
    claims = [a_claim() for _ in range(120)]  # more than are rotated at once
    settle([(take(claim), REPLY) for claim in claims])
    running = take(a_claim())
    old = settings.REDRIVE.encryption_keys
    new = Fernet.generate_key().decode()
    settings.REDRIVE = settings.REDRIVE.model_copy(update={"encryption_keys": [new, *old]})
    call_command("rotate_encryption", stdout=StringIO())
    settings.REDRIVE = settings.REDRIVE.model_copy(update={"encryption_keys": [new]})
    assert {begin(claim) for claim in claims} == {Replay(REPLY)}
    assert settle([(running, None)]) == [True]


def test_of_eight_equal_requests_one_runs() -> None:
    claim = a_claim()
    found = together(8, lambda _: begin(claim))
    assert sum(isinstance(one, Lease) for one in found) == 1
    assert sum(isinstance(one, IdempotencyInProgress) for one in found) == 7


def test_of_eight_that_find_a_lease_run_out_one_takes_it_over() -> None:
    claim = a_claim()
    take(claim)
    age(record(claim), minutes=1)
    found = together(8, lambda _: begin(claim))
    assert sum(isinstance(one, Lease) for one in found) == 1


def test_what_is_older_than_a_day_is_deleted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "PRUNED_AT_ONCE", 3)
    for number in range(5):
        claim = a_claim(str(number))
        settle([(take(claim), REPLY)])
        age(record(claim), hours=25)
    running, kept = a_claim("running"), a_claim("kept")
    take(running)
    settle([(take(kept), REPLY)])
    IdempotencyRecord.objects.filter(key="running").update(created_at=timezone.now() - timedelta(hours=25))
    assert [prune(), prune(), prune()] == [3, 2, 0]
    assert set(IdempotencyRecord.objects.values_list("key", flat=True)) == {"running", "kept"}


def test_the_database_refuses_a_lease_without_an_end() -> None:
    claim = a_claim()
    take(claim)
    with pytest.raises(IntegrityError):
        IdempotencyRecord.objects.filter(key=claim.key).update(lease_until=None)
