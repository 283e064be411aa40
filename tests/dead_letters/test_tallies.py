"""Counts of groups are those of their letters, whoever dies or decides meanwhile; the clock moves what changes."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.db import IntegrityError, connection
from django.utils import timezone

from apps.access.models import AuditEntry
from apps.dead_letters import decisions, grouping, tallies, triage
from apps.dead_letters.models import DeadLetter, FailureGroup, GroupHour, GroupKey, GroupTally
from apps.tasks import kinds
from apps.tasks.lifecycle.cancel import cancel
from tests.dead_letters.conftest import MakeLetter, die
from tests.dead_letters.operations import Letters, end
from tests.dead_letters.test_triage import broken
from tests.tasks.conftest import MakeKind, MakeTask
from tests.time import age

pytestmark = pytest.mark.django_db
COUNTS = ("died", "open", "redriven", "succeeded", "failed", "cancelled", "discarded")


def counts(fingerprint: str) -> dict[str, int]:
    """What the group's row says once all is folded in, but for zeros."""
    while GroupTally.objects.exists():
        tallies.fold()
    row = FailureGroup.objects.get(pk=fingerprint)
    return {name: found for name in COUNTS if (found := getattr(row, f"{name}_count"))}


def truth(fingerprint: str) -> dict[str, int]:
    """The same, counted anew."""
    rows = list(DeadLetter.objects.filter(group_id=fingerprint).values_list("state", "outcome"))
    found = {
        "died": len(rows),
        **{name: sum(row[0] == name for row in rows) for name in ("open", "redriven", "discarded")},
        **{name: sum(row[1] == name for row in rows) for name in ("succeeded", "cancelled")},
        "failed": sum(row[1] == "dead" for row in rows),
    }
    return {name: found[name] for name in COUNTS if found[name]}


def state_of(letter: DeadLetter) -> str:
    tallies.fold()
    return FailureGroup.objects.get(pk=letter.group_id).state


def run(letters: Sequence[DeadLetter], *, dead: int = 0) -> None:
    for letter in letters:
        triage.redrive(letter.pk)
    end(letters, dead=dead)


def test_a_group_counts_what_happens_to_its_letters(letters: Letters) -> None:
    group = letters[0].group_id
    assert counts(group) == {"died": 30, "open": 30}
    for letter in letters[:3]:
        triage.discard(letter.pk, reason="r")
    triage.restore(letters[0].pk)
    assert counts(group) == {"died": 30, "open": 28, "discarded": 2}
    run(letters[3:10], dead=2)
    found = counts(group)
    assert found == {"died": 32, "open": 23, "discarded": 2, "redriven": 7, "succeeded": 5, "failed": 2}
    triage.redrive(letters[10].pk)
    cancel(letters[10].task_id)
    assert counts(group) == {**found, "open": 22, "redriven": 8, "cancelled": 1} == truth(group)
    assert broken() == []


def test_what_is_not_folded_in_yet_is_known_to_verify(letters: Letters) -> None:
    tallies.fold()
    triage.discard(letters[0].pk, reason="r")
    assert broken() == []
    GroupTally.objects.all().delete()
    assert broken() == ["I13"]


def test_nothing_is_tallied_where_nothing_counts(letters: Letters) -> None:
    tallies.fold()
    triage.review([one.pk for one in letters])
    DeadLetter.objects.filter(pk=letters[0].pk).update(reason="other words")
    assert not GroupTally.objects.exists()
    assert tallies.fold() == 0


def test_one_statement_about_many_letters_is_one_tally_of_their_group(letters: Letters) -> None:
    GroupTally.objects.all().delete()
    decisions.discard([one.pk for one in letters], actor=None, reason="r", code="other")
    [tally] = GroupTally.objects.all()
    assert (tally.group_id, tally.opened, tally.discarded) == (letters[0].group_id, -30, 30)


def test_a_group_is_seen_first_and_last_by_its_deaths(make_kind: MakeKind, make_letter: MakeLetter) -> None:
    kind = make_kind()
    first = make_letter(kind=kind)
    tallies.fold()
    age(first.group, hours=3)
    before = FailureGroup.objects.get()
    second = make_letter(kind=kind)
    triage.discard(first.pk, reason="r")
    tallies.fold()
    after = FailureGroup.objects.get()
    assert (after.first_seen, after.last_seen) == (before.first_seen, second.created_at)
    triage.restore(first.pk)
    tallies.fold()
    assert FailureGroup.objects.get().last_seen == second.created_at  # a decision is no failure


def test_a_late_tally_does_not_move_the_last_failure_back(letters: Letters) -> None:
    tallies.fold()
    seen = FailureGroup.objects.get().last_seen
    GroupTally.objects.create(group_id=letters[0].group_id, at=seen - timedelta(hours=2), died=1, project_id=uuid4())
    tallies.fold()
    assert FailureGroup.objects.get().last_seen == seen


def test_hours_hold_the_deaths_of_each(letters: Letters, make_letter: MakeLetter) -> None:
    other = make_letter()
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    GroupTally.objects.filter(group_id=letters[0].group_id).update(at=hour + timedelta(minutes=1))
    tallies.fold()
    GroupTally.objects.create(group_id=other.group_id, at=hour - timedelta(minutes=1), died=4, project_id=uuid4())
    GroupTally.objects.create(group_id=other.group_id, at=hour - timedelta(minutes=1), died=3, project_id=uuid4())
    tallies.fold()
    rows = set(GroupHour.objects.exclude(group_id=other.group_id, hour=hour).values_list("group_id", "hour", "died"))
    assert rows == {(letters[0].group_id, hour, 30), (other.group_id, hour - timedelta(hours=1), 7)}


def test_keys_that_were_hit_are_counted_once_and_tasks_without_one_apart(
    make_task: MakeTask, make_kind: MakeKind
) -> None:
    kind, project, keys = make_kind(), uuid4(), [uuid4(), uuid4()]
    for key, number in ((keys[0], 3), (keys[1], 1), (None, 2)):
        for _ in range(number):
            die(make_task(kind, project_id=project, api_key_id=key))
        tallies.fold()
    die(make_task(kind, project_id=project, api_key_id=keys[0]))
    tallies.fold()
    assert FailureGroup.objects.get().key_count == 2
    found = dict(GroupKey.objects.values_list("api_key_id", "died"))
    assert found == {keys[0]: 4, keys[1]: 1, UUID(tallies.NO_KEY): 2}


@pytest.mark.django_db(transaction=True)
def test_a_resolved_group_that_fails_again_is_regressed_and_the_audit_says_by_whom(
    letters: Letters, make_task: MakeTask
) -> None:
    grouping.resolve(letters[0].group_id)  # before the clock has counted these thirty
    assert state_of(letters[0]) == "resolved"
    die(make_task(kinds.find(letters[0].kind)))
    assert state_of(letters[0]) == "regressed"
    entry = AuditEntry.objects.latest("at")
    assert (entry.actor, entry.action, entry.reason) == ("clock", "regressed", "it fails again")
    assert (entry.before, entry.after) == ({"state": "resolved"}, {"state": "regressed"})
    assert state_of(letters[0]) == "regressed"
    assert AuditEntry.objects.filter(action="regressed").count() == 1


def test_a_group_is_resolved_once_nothing_is_open_and_all_that_was_redriven_has_ended(letters: Letters) -> None:
    for letter in letters[5:]:
        triage.discard(letter.pk, reason="r")
    for letter in letters[:5]:
        triage.redrive(letter.pk)
    assert state_of(letters[0]) == "for_review"
    end(letters[:5])
    assert state_of(letters[0]) == "resolved"
    entry = AuditEntry.objects.latest("at")
    assert (entry.actor, entry.action, entry.before) == ("clock", "resolved", {"state": "for_review"})
    triage.restore(letters[5].pk)
    assert state_of(letters[0]) == "open"  # there is work again, but that is no failure


def test_a_redriven_task_that_dies_again_keeps_or_brings_its_group_back(letters: Letters) -> None:
    run(letters, dead=1)
    assert state_of(letters[0]) == "for_review"
    again = DeadLetter.objects.get(state="open")
    run([again])
    assert state_of(again) == "resolved"
    assert counts(again.group_id) == {"died": 31, "redriven": 31, "succeeded": 30, "failed": 1}


def test_a_snooze_ends_at_its_time(letters: Letters) -> None:
    tallies.fold()
    group = letters[0].group_id
    grouping.snooze(group, until=timezone.now() + timedelta(hours=1))
    assert state_of(letters[0]) == "snoozed"
    FailureGroup.objects.update(snoozed_until=timezone.now() - timedelta(minutes=5))
    assert state_of(letters[0]) == "for_review"
    row = FailureGroup.objects.get()
    assert (row.snoozed_until, row.snooze_after) == (None, None)
    assert AuditEntry.objects.latest("at").reason == "its snooze is over"


@pytest.mark.parametrize("folded", [True, False])
def test_a_snooze_ends_after_so_many_failures_more(letters: Letters, make_task: MakeTask, folded: bool) -> None:
    if folded:
        tallies.fold()
    grouping.snooze(letters[0].group_id, more=3)
    for expected in ("snoozed", "snoozed", "for_review"):
        die(make_task(kinds.find(letters[0].kind)))
        assert state_of(letters[0]) == expected


def test_a_snoozed_group_of_which_nothing_is_left_is_resolved(letters: Letters) -> None:
    grouping.snooze(letters[0].group_id, until=timezone.now() + timedelta(hours=1))
    decisions.discard([one.pk for one in letters], actor=None, reason="r", code="other")
    assert state_of(letters[0]) == "resolved"


@pytest.mark.django_db(transaction=True)
def test_a_fold_that_fails_loses_no_tally(letters: Letters) -> None:
    group = letters[0].group_id
    before = GroupTally.objects.count()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE dead_letters_failuregroup ADD CONSTRAINT no_more CHECK (died_count < 5)")
    try:
        with pytest.raises(IntegrityError):
            tallies.fold()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE dead_letters_failuregroup DROP CONSTRAINT no_more")
    assert GroupTally.objects.count() == before > 0
    assert not GroupHour.objects.exists()
    assert counts(group) == {"died": 30, "open": 30}


def test_a_group_whose_letters_are_restored_is_worked_on_again(letters: Letters) -> None:
    for letter in letters:
        triage.discard(letter.pk, reason="by mistake")
    assert state_of(letters[0]) == "resolved"
    triage.restore(letters[0].pk)
    assert state_of(letters[0]) == "open"
    assert AuditEntry.objects.filter(action="open", object_id=letters[0].group_id).count() == 1
    grouping.resolve(letters[0].group_id)
    triage.discard(letters[0].pk, reason="no mistake")
    assert state_of(letters[0]) == "resolved"


def test_a_group_that_fails_again_while_letters_of_it_are_restored_is_regressed(
    letters: Letters, make_letter: MakeLetter
) -> None:
    for letter in letters:
        triage.discard(letter.pk, reason="by mistake")
    assert state_of(letters[0]) == "resolved"
    age(FailureGroup.objects.get(), hours=1)
    triage.restore(letters[0].pk)
    make_letter(kind=kinds.find(letters[0].kind))
    assert state_of(letters[0]) == "regressed"
