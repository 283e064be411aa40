"""Failures that each have a fingerprint of their own make thousands of groups: the clock counts them all the same."""

import pytest
from django.db import connection, transaction

from apps.access.models import AuditEntry
from apps.dead_letters import tallies
from apps.dead_letters.models import FailureGroup

pytestmark = pytest.mark.django_db
MANY, FEWER = 10_000, 1_000


def fail_each_once(many: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO dead_letters_failuregroup (fingerprint, kind, queue, code, upstream, message)
            SELECT 'f' || n, 'k', 'default', 'c', '', '' FROM generate_series(1, %(many)s) AS n ON CONFLICT DO NOTHING;
            INSERT INTO dead_letters_grouptally (group_id, project_id, api_key_id, died, opened)
            SELECT 'f' || n, uuidv7(), uuidv7(), 1, 1 FROM generate_series(1, %(many)s) AS n
            """,
            {"many": many},
        )


@transaction.atomic
def fold_within(seconds: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = '{seconds}s'")
    return tallies.fold()


def decide_much() -> None:
    """What Postgres knows of tallies is of a time when letters were decided and none died."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO dead_letters_grouptally (group_id, discarded) SELECT 'x', 1 FROM generate_series(1, 999)"
        )
        cursor.execute("ANALYZE dead_letters_grouptally")
        cursor.execute("DELETE FROM dead_letters_grouptally")


def test_a_fold_of_as_many_groups_as_tallies_does_not_compare_each_with_each() -> None:
    decide_much()
    fail_each_once(MANY)
    assert fold_within(5) == MANY
    assert set(FailureGroup.objects.values_list("died_count", "open_count", "key_count")) == {(1, 1, 1)}


def test_a_thousand_groups_that_fail_again_at_once_have_an_entry_each_in_the_audit() -> None:
    fail_each_once(FEWER)
    tallies.fold()
    FailureGroup.objects.update(
        state="resolved", last_seen="2026-01-01T00:00:00Z", state_changed_at="2026-01-01T00:00:00Z"
    )
    fail_each_once(FEWER)
    assert tallies.fold() == FEWER
    assert set(FailureGroup.objects.values_list("state", "died_count", "key_count")) == {("regressed", 2, 2)}
    entries = AuditEntry.objects.filter(action="regressed")
    assert entries.count() == FEWER
    assert entries.values("object_id").distinct().count() == FEWER
    assert {(one.actor, one.reason, one.before["state"], one.after["state"]) for one in entries} == {
        ("clock", "it fails again", "resolved", "regressed")
    }
