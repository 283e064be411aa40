"""API keys: made, rotated, disabled; only their digest is kept."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import IntegrityError, connections, transaction

from apps.access import keys
from apps.access.authentication import find
from apps.access.models import ApiKey, AuditEntry, Limit, Project
from tests.conftest import MakeKey
from tests.races import together, wait_for_a_waiting_session
from tests.time import age

HOUR = timedelta(hours=1)


@pytest.mark.django_db
def test_a_secret_has_256_bits_and_is_kept_as_its_digest_only(make_key: MakeKey) -> None:
    key, secret = make_key()
    assert secret.startswith("rd_")
    assert len(secret) == 46
    row = ApiKey.objects.filter(pk=key.pk).values().get()
    assert secret not in str(row)
    assert row["digest"] == keys.digest(secret)
    assert row["prefix"] == secret[:10]


@pytest.mark.django_db
def test_a_key_has_a_hundred_requests_a_minute_unless_it_says_otherwise() -> None:
    project = Project.objects.create(name="p")
    usual, _ = keys.create(project=project, name="usual")
    other, _ = keys.create(project=project, name="other", limits={"requests_per_minute": 7, "concurrency": 2})
    assert usual.limit.requests_per_minute == 100
    assert (other.limit.requests_per_minute, other.limit.concurrency) == (7, 2)
    assert keys.STRICT_REQUESTS_PER_MINUTE == 10


@pytest.mark.django_db
def test_a_key_and_its_limit_and_its_audit_are_made_together_or_not_at_all() -> None:
    project = Project.objects.create(name="p")
    with pytest.raises(IntegrityError), transaction.atomic():
        keys.create(project=project, name="x", limits={"requests_per_minute": -1})
    assert not ApiKey.objects.exists()
    assert not AuditEntry.objects.exists()


@pytest.mark.django_db
def test_a_rotated_key_works_with_both_secrets_until_the_overlap_ends(make_key: MakeKey) -> None:
    key, old = make_key()
    new = keys.rotate(key=key, overlap=HOUR)
    assert find(keys.digest(old)) is not None
    assert find(keys.digest(new)) is not None
    age(key, hours=2)
    assert find(keys.digest(old)) is None
    assert find(keys.digest(new)) is not None


@pytest.mark.django_db
def test_a_key_rotated_without_overlap_refuses_the_old_secret_at_once(make_key: MakeKey) -> None:
    key, old = make_key()
    new = keys.rotate(key=key, overlap=timedelta(0))
    assert find(keys.digest(old)) is None
    assert find(keys.digest(new)) is not None


@pytest.mark.django_db
def test_the_audit_of_a_rotation_holds_neither_secret(make_key: MakeKey) -> None:
    key, old = make_key()
    new = keys.rotate(key=key, overlap=HOUR, reason="leaked")
    entry = AuditEntry.objects.get(action="rotate")
    text = f"{entry.before} {entry.after} {entry.object_name}"
    assert entry.reason == "leaked"
    assert all(word not in text for word in (old, new, keys.digest(old), keys.digest(new)))


@pytest.mark.django_db
def test_a_disabled_key_is_refused_until_it_is_enabled(make_key: MakeKey) -> None:
    key, secret = make_key()
    assert keys.set_disabled(key=key, disabled=True)
    assert find(keys.digest(secret)) is None
    assert not keys.set_disabled(key=key, disabled=True)
    assert keys.set_disabled(key=key, disabled=False)
    assert find(keys.digest(secret)) is not None
    assert AuditEntry.objects.filter(action__in=["disable", "enable"]).count() == 2


@pytest.mark.django_db(transaction=True)
def test_of_eight_who_disable_a_key_at_once_one_wins_and_is_audited(make_key: MakeKey) -> None:
    key, _ = make_key()
    won = together(8, lambda _: keys.set_disabled(key=ApiKey.objects.get(pk=key.pk), disabled=True))
    assert sorted(won, key=str) == [False] * 7 + [True]
    assert AuditEntry.objects.filter(action="disable").count() == 1


@pytest.mark.django_db(transaction=True)
def test_after_eight_rotations_at_once_the_last_two_secrets_work(make_key: MakeKey) -> None:
    key, first = make_key()
    secrets: list[Any] = together(8, lambda _: keys.rotate(key=ApiKey.objects.get(pk=key.pk), overlap=HOUR))
    assert all(isinstance(secret, str) for secret in secrets), secrets
    working = [secret for secret in secrets if find(keys.digest(secret))]
    assert find(keys.digest(first)) is None
    assert len(working) == 2


@pytest.mark.django_db(transaction=True)
def test_a_rotation_that_waited_for_another_keeps_the_others_secret_alive(make_key: MakeKey) -> None:
    key, _ = make_key()
    with transaction.atomic():
        one = keys.rotate(key=ApiKey.objects.get(pk=key.pk), overlap=HOUR)
        waiting = _rotate_behind(key)
    waiting["thread"].join(10)
    assert find(keys.digest(waiting["secret"])) is not None
    assert find(keys.digest(one)) is not None


def _rotate_behind(key: ApiKey) -> dict[str, Any]:
    """Start a rotation in a thread and return once Postgres has it wait for a lock."""
    found: dict[str, Any] = {}

    def rotate() -> None:
        found["secret"] = keys.rotate(key=ApiKey.objects.get(pk=key.pk), overlap=HOUR)
        connections.close_all()

    found["thread"] = threading.Thread(target=rotate)
    found["thread"].start()
    wait_for_a_waiting_session()
    return found


@pytest.mark.django_db
def test_a_limit_belongs_to_a_project_or_to_a_key(make_key: MakeKey) -> None:
    key, _ = make_key()
    Limit.objects.all().delete()
    for owners in ({}, {"project": key.project, "api_key": key}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Limit.objects.create(requests_per_minute=1, **owners)


@pytest.mark.django_db
def test_a_previous_secret_without_an_end_is_refused_by_the_database(make_key: MakeKey) -> None:
    key, _ = make_key()
    with pytest.raises(IntegrityError), transaction.atomic():
        ApiKey.objects.filter(pk=key.pk).update(previous_digest="x", previous_expires_at=None)


@pytest.mark.django_db
def test_the_audit_names_the_person_who_made_a_key() -> None:
    person = get_user_model().objects.create_user("ada")
    keys.create(project=Project.objects.create(name="p"), name="x", actor=person, reason="asked for")
    entry = AuditEntry.objects.get(action="create", object_type="access.apikey")
    assert (entry.actor, entry.actor_id, entry.reason) == ("ada", person.pk, "asked for")
