"""What people decide about a failure group: each move as the table allows it, by who may, once, and in the audit."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.access.models import AuditEntry
from apps.core.errors import InvalidRequest, PermissionDenied, ServiceUnavailable
from apps.dead_letters import group_states, grouping, tallies
from apps.dead_letters.errors import GroupHasMoved, GroupNotFound
from apps.dead_letters.models import DeadLetter, FailureGroup
from apps.tasks import holds
from apps.tasks.lifecycle.ending import failure_of
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import Task
from tests.dead_letters.conftest import MakeLetter
from tests.dead_letters.test_triage import broken, person
from tests.races import together
from tests.tasks.conftest import MakeKind, MakeTask, ending, take
from tests.time import age

pytestmark = pytest.mark.django_db
Verb = Callable[..., Any]
MOVES: dict[str, Verb] = {
    group_states.SNOOZED: lambda name, **by: grouping.snooze(name, more=3, **by),
    group_states.RESOLVED: grouping.resolve,
    group_states.OPEN: grouping.reopen,
}
HOLDS: dict[str, Verb] = {"hold": grouping.hold, "release": grouping.release}
OTHERS: dict[str, Verb] = {
    "assign": lambda name, **by: grouping.assign(name, owner="", **by),
    "note": lambda name, **by: grouping.note(name, text="seen", **by),
}
OF_THE_CLOCK = {
    (group_states.SNOOZED, group_states.FOR_REVIEW),
    (group_states.RESOLVED, group_states.REGRESSED),
}


@pytest.fixture
def group(make_letter: MakeLetter) -> FailureGroup:
    """One with a letter."""
    letter = make_letter()
    tallies.fold()
    found = FailureGroup.objects.get(pk=letter.group_id)
    age(found, hours=1)
    return found


def put(group: FailureGroup, state: str) -> None:
    after = 100 if state == group_states.SNOOZED else None
    FailureGroup.objects.filter(pk=group.pk).update(state=state, snooze_after=after)
    group.refresh_from_db()


@pytest.mark.parametrize("state", group_states.ALL)
@pytest.mark.parametrize("target", MOVES)
def test_each_verb_moves_a_group_only_as_the_table_allows(group: FailureGroup, state: str, target: str) -> None:
    put(group, state)
    before = group.state_changed_at
    if target in group_states.TRANSITIONS[state]:
        moved = MOVES[target](group.pk, reason="because")
        assert moved.state == target
        assert moved.state_changed_at > before
        assert (moved.snooze_after is not None) == (target == group_states.SNOOZED)
        [entry] = AuditEntry.objects.all()
        assert (entry.reason, entry.before["state"], entry.after["state"]) == ("because", state, target)
        assert entry.object_id == group.pk
    else:
        with pytest.raises(GroupHasMoved, match=group_states.WORDS[state]):
            MOVES[target](group.pk)
        group.refresh_from_db()
        assert (group.state, group.state_changed_at) == (state, before)
        assert not AuditEntry.objects.exists()


def test_the_table_holds_no_move_that_nobody_makes() -> None:
    moves = {(source, target) for source, targets in group_states.TRANSITIONS.items() for target in targets}
    assert set(group_states.TRANSITIONS) == set(group_states.ALL) == set(group_states.WORDS)
    assert moves - OF_THE_CLOCK == {(source, target) for source, target in moves if target in MOVES}
    assert moves >= OF_THE_CLOCK


@pytest.mark.parametrize("state", group_states.ALL)
def test_who_is_given_a_group_that_waits_for_a_look_works_on_it(
    group: FailureGroup, django_user_model: Any, state: str
) -> None:
    put(group, state)
    owner = person(django_user_model)
    found = grouping.assign(group.pk, owner=owner.username)
    assert found.owner == owner
    assert found.state == (group_states.OPEN if state in group_states.TO_REVIEW else state)
    [entry] = AuditEntry.objects.all()
    assert (entry.action, entry.before["owner"], entry.after["owner"]) == ("assign", None, owner.username)
    nobody = grouping.assign(group.pk, owner="")
    assert (nobody.owner, nobody.state) == (None, found.state)


def test_only_an_active_member_of_the_staff_is_given_a_group(group: FailureGroup, django_user_model: Any) -> None:
    django_user_model.objects.create_user("customer")
    django_user_model.objects.create_user("left", is_staff=True, is_active=False)
    for name in ("nobody", "customer", "left", "a\0b", "\ud800"):
        with pytest.raises(InvalidRequest) as refused:
            grouping.assign(group.pk, owner=name)
        assert refused.value.param == "owner"
    assert not AuditEntry.objects.exists()


def test_an_owner_who_is_gone_leaves_the_group_to_nobody(group: FailureGroup, django_user_model: Any) -> None:
    owner = person(django_user_model)
    grouping.assign(group.pk, owner=owner.username)
    owner.delete()
    group.refresh_from_db()
    assert (group.owner, group.state) == (None, group_states.OPEN)


def test_a_note_is_replaced_and_holds_what_postgres_can(group: FailureGroup) -> None:
    assert grouping.note(group.pk, text=" the provider\nwas down \0\ud800 ").note == "the provider\nwas down"
    grouping.note(group.pk, text="x" * grouping.MAX_NOTE)
    with pytest.raises(InvalidRequest) as refused:
        grouping.note(group.pk, text="x" * (grouping.MAX_NOTE + 1))
    assert refused.value.param == "text"
    assert grouping.note(group.pk, text="").note == ""
    assert AuditEntry.objects.filter(action="note").count() == 3
    assert AuditEntry.objects.earliest("at", "id").after == {"note": "the provider\nwas down"}


NOW = timezone.now()


@pytest.mark.parametrize(
    ("terms", "param"),
    [
        ({}, "until"),
        ({"until": NOW - timedelta(seconds=1)}, "until"),
        ({"until": NOW + timedelta(days=400)}, "until"),
        ({"until": datetime.max.replace(tzinfo=NOW.tzinfo)}, "until"),
        ({"until": (NOW + timedelta(days=2)).replace(tzinfo=None)}, "until"),
        ({"more": 0}, "more"),
        ({"more": -1}, "more"),
        ({"more": grouping.MOST_MORE + 1}, "more"),
        ({"more": 10**30, "until": NOW + timedelta(days=1)}, "more"),
        ({"more": 1, "reason": "x" * 501}, "reason"),
    ],
)
def test_a_snooze_has_an_end_that_can_come(group: FailureGroup, terms: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        grouping.snooze(group.pk, **terms)
    assert refused.value.param == param
    group.refresh_from_db()
    assert group.state == group_states.FOR_REVIEW


def test_a_snooze_keeps_both_ends_and_whatever_follows_takes_them_away(group: FailureGroup) -> None:
    until = timezone.now() + timedelta(hours=1)
    snoozed = grouping.snooze(group.pk, until=until, more=5)
    assert (snoozed.snoozed_until, snoozed.snooze_after) == (until, group.died_count + 5)
    for end in (grouping.reopen, grouping.resolve):
        found = end(group.pk)
        assert (found.snoozed_until, found.snooze_after) == (None, None)


@pytest.mark.parametrize("name", ["0" * 64, "", "a\0b", "\ud800", "x" * 5000])
def test_there_is_nothing_to_decide_about_a_group_that_is_not_there(db: None, name: str) -> None:
    for verb in (*MOVES.values(), *HOLDS.values(), *OTHERS.values()):
        with pytest.raises(GroupNotFound):
            verb(name)


def test_who_may_not_change_groups_or_hold_them_does_not(group: FailureGroup, django_user_model: Any) -> None:
    changer = person(django_user_model, "change_failuregroup")
    holder = person(django_user_model, "hold_failuregroup")
    for verb in (*MOVES.values(), *OTHERS.values()):
        with pytest.raises(PermissionDenied):
            verb(group.pk, actor=holder)
    for verb in HOLDS.values():
        with pytest.raises(PermissionDenied):
            verb(group.pk, actor=changer)
    assert not AuditEntry.objects.exists()
    grouping.hold(group.pk, actor=holder, reason="too many")
    grouping.release(group.pk, actor=holder)
    for verb in (*OTHERS.values(), *MOVES.values()):
        verb(group.pk, actor=changer)
    assert set(AuditEntry.objects.values_list("actor", flat=True)) == {changer.username, holder.username}


def test_a_hold_is_set_and_ended_once(group: FailureGroup) -> None:
    with pytest.raises(GroupHasMoved):
        grouping.release(group.pk)
    grouping.hold(group.pk, reason="the provider is billing each")
    with pytest.raises(GroupHasMoved):
        grouping.hold(group.pk)
    assert holds.held([group.pk, "other"]) == {group.pk}
    grouping.release(group.pk)
    assert holds.held([group.pk]) == set()
    entries = AuditEntry.objects.order_by("id").values_list("action", "before", "after")
    assert list(entries) == [("hold", {"held": False}, {"held": True}), ("release", {"held": True}, {"held": False})]


def fail_once(task: Task, message: str = "It is down.") -> str:
    """Let its next attempt fail in a way that is retried; the state that it is in then."""
    task.refresh_from_db()
    Task.objects.filter(pk=task.pk).update(next_attempt_at=timezone.now() - timedelta(seconds=1))
    claimed = take(task)
    failure = failure_of(ServiceUnavailable(message), kind=task.kind, upstream="")
    [state] = finish([ending(claimed, "retrying", "failed", charged=True, delay=1.0, failure=failure)])
    assert state is not None
    return state


def test_a_held_failure_is_a_task_s_last_until_it_is_released(
    make_letter: MakeLetter, make_kind: MakeKind, make_task: MakeTask
) -> None:
    kind = make_kind()
    letter = make_letter(kind=kind, error=ServiceUnavailable("It is down."))
    before = make_task(kind)
    assert fail_once(before) == "retrying"
    grouping.hold(letter.group_id)
    assert fail_once(before) == "dead"
    between = make_task(kind)
    assert fail_once(between) == "dead"
    after = make_task(kind)
    assert fail_once(after, "Something else.") == "retrying"
    grouping.release(letter.group_id)
    assert fail_once(after) == "retrying"
    found = DeadLetter.objects.filter(group_id=letter.group_id).values_list("task_id", "attempts")
    assert set(found) == {(letter.task_id, 1), (before.pk, 2), (between.pk, 1)}
    assert broken() == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("verb", [grouping.resolve, MOVES[group_states.SNOOZED], grouping.hold, grouping.reopen])
def test_of_two_who_do_the_same_at_once_one_is_told_that_it_is_done(group: FailureGroup, verb: Verb) -> None:
    found = together(8, lambda number: verb(group.pk, reason=f"by {number}"))
    assert [type(one) for one in found if isinstance(one, Exception)] == [GroupHasMoved] * 7
    assert AuditEntry.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_those_who_do_different_things_at_once_undo_nothing_of_one_another(
    group: FailureGroup, django_user_model: Any
) -> None:
    owner = person(django_user_model)
    work: list[Callable[[], Any]] = [
        lambda: grouping.assign(group.pk, owner=owner.username),
        lambda: grouping.note(group.pk, text="mine"),
        lambda: grouping.hold(group.pk),
        tallies.fold,
        lambda: grouping.snooze(group.pk, more=7),
    ]
    found = together(len(work), lambda number: work[number]())
    assert [one for one in found if isinstance(one, Exception)] == []
    group.refresh_from_db()
    assert (group.owner, group.note, group.snooze_after) == (owner, "mine", group.died_count + 7)
    assert group.state in {group_states.SNOOZED}
    assert AuditEntry.objects.count() == 4
