"""A bulk operation decides what matched when it was made: each letter once, at its pace, and stops where it fails."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from apps.access.models import AuditEntry
from apps.core.errors import InvalidRequest, PermissionDenied
from apps.dead_letters import bulk_states, triage
from apps.dead_letters.bulk import control, pacer, plan, report
from apps.dead_letters.errors import GroupIsTaken, GroupNotFound, OperationHasMoved
from apps.dead_letters.models import BulkItem, BulkOperation, BulkSlot, DeadLetter
from apps.tasks.lifecycle.cancel import cancel as cancel_task
from apps.tasks.lifecycle.ending import failure_of
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import Task
from tests.dead_letters.conftest import MakeLetter
from tests.dead_letters.test_triage import broken, person
from tests.tasks.conftest import MakeKind, ending, take_all
from tests.time import age

pytestmark = pytest.mark.django_db
Letters = list[DeadLetter]


@pytest.fixture
def letters(make_letter: MakeLetter, make_kind: MakeKind) -> Letters:
    """Thirty of one group."""
    kind = make_kind()
    return [make_letter(kind=kind) for _ in range(30)]


def tick(operation: BulkOperation, *, seconds: float = 0.0) -> BulkOperation:
    """Let the clock look at it once, as if so much time had passed since it last released."""
    operation.refresh_from_db()
    for name in ("paced_at", "release_at"):
        if seconds and getattr(operation, name):
            age_of(operation, name, seconds)
    pacer.tick()
    operation.refresh_from_db()
    return operation


def age_of(operation: BulkOperation, name: str, seconds: float) -> None:
    moment = getattr(operation, name) - timedelta(seconds=seconds)
    BulkOperation.objects.filter(pk=operation.pk).update(**{name: moment})


def counted(action: str = "redrive", **what: Any) -> BulkOperation:
    """An operation that is ready."""
    return tick(plan.create(action, **what))


def begun(action: str = "redrive", *, what: dict[str, Any], **terms: Any) -> BulkOperation:
    """An operation whose hold is over."""
    operation = counted(action, **what)
    control.start(operation.pk, **terms)
    return tick(operation, seconds=11)


def end(letters: Sequence[DeadLetter], *, dead: int = 0) -> None:
    """Run the redriven tasks of these letters to their end, the first `dead` of them to another death."""
    tasks = list(Task.objects.filter(pk__in=[one.task_id for one in letters], state="pending").order_by("pk"))
    claimed = take_all(tasks)
    failure = failure_of(InvalidRequest("It does not fit."), kind=tasks[0].kind, upstream="")
    finish(
        [ending(one, "dead", "failed", charged=True, failure=failure) for one in claimed[:dead]]
        + [ending(one) for one in claimed[dead:]]
    )


def states_of(letters: Sequence[DeadLetter]) -> dict[str, int]:
    found: dict[str, int] = {}
    for state in DeadLetter.objects.filter(pk__in=[one.pk for one in letters]).values_list("state", flat=True):
        found[state] = found.get(state, 0) + 1
    return found


def test_it_is_answered_while_it_is_counted_and_says_what_it_is_about(letters: Letters) -> None:
    operation = plan.create("redrive", groups=[letters[0].group_id])
    assert (operation.state, operation.total) == ("counting", 0)
    tick(operation)
    assert (operation.state, operation.total, operation.pending) == ("ready", 30, 30)
    assert operation.breakdown["kind"] == [[letters[0].kind, 30]]
    assert operation.breakdown["age"] == [["less than 1 h", 30]]
    assert operation.breakdown["key"] == [["no API key", 30]]
    assert operation.cost_nusd is not None
    assert states_of(letters) == {"open": 30}


def test_nothing_is_released_within_the_hold_and_the_start_can_be_undone(letters: Letters) -> None:
    operation = counted(groups=[letters[0].group_id])
    control.start(operation.pk)
    tick(operation)
    assert operation.state == "holding"
    assert report.of(operation).hold_left > 5
    assert control.undo(operation.pk).state == "ready"
    tick(operation, seconds=60)
    assert states_of(letters) == {"open": 30}
    with pytest.raises(OperationHasMoved):
        control.undo(operation.pk)


def test_the_others_go_only_once_the_canaries_have_succeeded(letters: Letters) -> None:
    operation = begun(what={"groups": [letters[0].group_id]})
    assert (operation.state, operation.canary, operation.released) == ("canary", 3, 3)
    tick(operation, seconds=60)
    assert states_of(letters) == {"open": 27, "redriven": 3}
    end(letters)
    tick(operation)
    assert (operation.state, operation.succeeded) == ("running", 3)
    tick(operation, seconds=0.5)
    assert operation.released == 3 + 10  # 20 a second
    tick(operation, seconds=60)
    assert operation.pending == 0
    end(letters)
    tick(operation)
    assert (operation.state, operation.succeeded, operation.failed) == ("done", 30, 0)
    assert not BulkSlot.objects.exists()
    assert broken() == []
    assert AuditEntry.objects.filter(action="redrive").count() == 30


def test_a_canary_that_fails_stops_it_until_a_person_lets_it_go_on(letters: Letters) -> None:
    operation = begun(what={"groups": [letters[0].group_id]})
    end(letters, dead=3)
    tick(operation)
    assert (operation.state, operation.failed) == ("stopped", 3)
    assert "3 of the first 3" in operation.stop_reason
    [(_, title, count)] = report.of(operation).failed_again
    assert count == 3
    assert "validation_error" in title
    tick(operation, seconds=60)
    assert operation.released == 3
    control.resume(operation.pk)
    tick(operation, seconds=60)
    assert (operation.state, operation.released) == ("running", 30)
    end(letters)
    tick(operation)
    assert (operation.state, operation.succeeded, operation.failed) == ("done", 27, 3)
    assert broken() == []


def test_it_stops_by_itself_where_too_many_fail_again(letters: Letters) -> None:
    operation = counted(groups=[letters[0].group_id])
    control.start(operation.pk, canary=0, rate=20, max_in_flight=12)
    tick(operation, seconds=11)
    tick(operation, seconds=2)
    assert (operation.released, operation.in_flight) == (12, 12)
    end(letters, dead=3)
    tick(operation, seconds=2)
    assert (operation.succeeded, operation.failed) == (9, 3)
    assert operation.state == "stopped"
    assert "3 of 12" in operation.stop_reason
    assert states_of(letters) == {"open": 18, "redriven": 12}


def test_no_more_are_in_flight_than_may_be(letters: Letters) -> None:
    operation = counted(groups=[letters[0].group_id])
    control.start(operation.pk, canary=0, max_in_flight=4, rate=1000)
    for _ in range(5):
        tick(operation, seconds=11)
    assert operation.released == 4
    end(letters)
    tick(operation, seconds=1)
    assert (operation.succeeded, operation.released) == (4, 8)


def test_a_pause_releases_nothing_and_a_resume_goes_on_where_it_was(letters: Letters) -> None:
    operation = begun(what={"groups": [letters[0].group_id]})
    control.pause(operation.pk)
    end(letters)
    tick(operation, seconds=60)
    assert (operation.state, operation.released, operation.succeeded) == ("paused", 3, 3)
    assert control.resume(operation.pk).state == "canary"
    tick(operation)
    assert operation.state == "running"


def test_a_cancel_leaves_what_was_not_released_and_gives_the_groups_back(letters: Letters) -> None:
    operation = begun(what={"groups": [letters[0].group_id]})
    control.cancel(operation.pk, reason="enough")
    tick(operation, seconds=60)
    assert (operation.state, operation.pending) == ("cancelled", 27)
    assert states_of(letters) == {"open": 27, "redriven": 3}
    end(letters)
    tick(operation)
    assert operation.succeeded == 3  # still noted
    again = counted(groups=[letters[0].group_id])
    assert again.pending == 27
    assert broken() == []


def test_of_two_operations_on_a_group_the_second_is_refused_or_leaves_it_out(
    letters: Letters, make_letter: MakeLetter
) -> None:
    other = make_letter()
    first = counted(groups=[letters[0].group_id])
    with pytest.raises(GroupIsTaken) as refused:
        plan.create("discard", groups=[letters[0].group_id])
    assert refused.value.details == {"group": letters[0].group_id, "operation": str(first.pk)}
    second = counted(query="state:open")
    assert (second.total, second.skipped, second.pending) == (31, 30, 1)
    assert report.of(second).skips == [("another operation works on its group", 30)]
    assert BulkSlot.objects.get(operation_id=second.pk).group_id == other.group_id


def test_later_letters_are_none_of_its_business(letters: Letters, make_letter: MakeLetter) -> None:
    operation = plan.create("redrive", query="state:open")
    for letter in letters[:10]:
        age(letter, minutes=2)
    BulkOperation.objects.filter(pk=operation.pk).update(created_at=operation.created_at - timedelta(minutes=1))
    tick(operation)
    assert operation.total == 10


def test_what_somebody_else_decided_meanwhile_is_skipped_and_the_report_says_so(letters: Letters) -> None:
    operation = counted(groups=[letters[0].group_id])
    triage.discard(letters[0].pk, reason="r")
    triage.redrive(letters[1].pk)
    control.start(operation.pk, canary=0)
    tick(operation, seconds=11)
    tick(operation, seconds=60)
    assert (operation.released, operation.skipped) == (28, 2)
    assert report.of(operation).skips == [
        ("somebody else decided: discarded", 1),
        ("somebody else decided: redriven", 1),
    ]
    assert broken() == []


def test_a_discard_needs_a_reason_and_can_be_taken_back_as_a_whole(letters: Letters) -> None:
    operation = counted("discard", query="state:open")
    with pytest.raises(InvalidRequest) as refused:
        control.start(operation.pk, code="duplicate")
    assert refused.value.param == "reason"
    control.start(operation.pk, code="duplicate", reason="sent twice")
    tick(operation, seconds=11)
    tick(operation, seconds=1)
    tick(operation)
    assert (operation.state, operation.released) == ("done", 30)
    letter = DeadLetter.objects.get(pk=letters[0].pk)
    assert (letter.state, letter.discard_code, letter.reason) == ("discarded", "duplicate", "sent twice")
    back = counted("restore", source=operation.pk)
    assert back.pending == 30
    control.start(back.pk)
    tick(back, seconds=11)
    tick(back, seconds=1)
    tick(back)
    assert back.state == "done"
    assert states_of(letters) == {"open": 30}
    assert broken() == []


@pytest.mark.parametrize(("action", "large"), [("redrive", 1000), ("discard", 100)])
def test_a_large_one_starts_only_for_who_types_its_number(letters: Letters, action: str, large: int) -> None:
    operation = counted(action, query="state:open")
    BulkOperation.objects.filter(pk=operation.pk).update(total=large + 1)
    for confirm in (None, large, 30):
        with pytest.raises(InvalidRequest) as refused:
            control.start(operation.pk, reason="r", confirm=confirm)
        assert refused.value.param == "confirm"
    assert control.start(operation.pk, reason="r", confirm=large + 1).state == "holding"


def test_an_operation_that_nobody_starts_gives_its_groups_back(letters: Letters) -> None:
    operation = counted(groups=[letters[0].group_id])
    age(operation, minutes=61)
    tick(operation)
    assert operation.state == "cancelled"
    assert not BulkSlot.objects.exists()


def test_one_without_letters_ends_by_itself(letters: Letters) -> None:
    operation = counted(query="code:no_such_code")
    assert (operation.state, operation.total) == ("done", 0)


@pytest.mark.parametrize(
    ("what", "error", "param"),
    [
        ({}, InvalidRequest, "groups"),
        ({"query": "colour:red"}, InvalidRequest, "q"),
        ({"query": "state:blue"}, InvalidRequest, "q"),
        ({"groups": ["none"]}, GroupNotFound, None),
    ],
)
def test_what_is_not_understood_makes_no_operation(db: None, what: Any, error: type[Any], param: str | None) -> None:
    with pytest.raises(error) as refused:
        plan.create("redrive", **what)
    assert refused.value.param == param
    assert not BulkOperation.objects.exists()


@pytest.mark.parametrize(
    ("action", "codename"), [("redrive", "discard"), ("discard", "redrive"), ("restore", "redrive")]
)
def test_each_action_has_a_permission_of_its_own(
    letters: Letters, django_user_model: Any, action: str, codename: str
) -> None:
    wrong = person(django_user_model, f"{codename}_bulkoperation")
    with pytest.raises(PermissionDenied):
        plan.create(action, query="state:open", actor=wrong)
    operation = counted(action, query="state:open") if action != "restore" else plan.create(action, query="task_x x")
    for verb in (control.start, control.cancel, control.pause, control.change_pace):
        with pytest.raises(PermissionDenied):
            verb(operation.pk, actor=wrong)


def test_each_move_is_made_only_where_the_table_allows_it(letters: Letters) -> None:
    verbs = {"start": control.start, "undo": control.undo, "pause": control.pause, "resume": control.resume}
    allowed = {"ready": {"start"}, "holding": {"undo"}, "canary": {"pause"}, "running": {"pause"},
               "paused": {"resume"}, "stopped": {"resume"}}  # fmt: skip
    operation = counted(groups=[letters[0].group_id])
    for state in bulk_states.ALL:
        for name, verb in verbs.items():
            final = {"finished_at": operation.created_at} if state in bulk_states.FINAL else {"finished_at": None}
            BulkOperation.objects.filter(pk=operation.pk).update(state=state, resumes_in="running", **final)
            if name in allowed.get(state, set()):
                assert verb(operation.pk).state in bulk_states.TRANSITIONS[state]
            else:
                with pytest.raises(OperationHasMoved):
                    verb(operation.pk)


def test_a_redriven_task_that_is_cancelled_is_told_apart(letters: Letters) -> None:
    operation = begun(what={"groups": [letters[0].group_id]})
    item = BulkItem.objects.filter(operation_id=operation.pk, state="released").first()
    assert item is not None
    cancel_task(item.task_id)
    tick(operation)
    assert (operation.state, operation.cancelled) == ("stopped", 1)
