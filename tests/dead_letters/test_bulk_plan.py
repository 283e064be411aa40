"""A bulk operation is about what matched when it was made: counted, confirmed, permitted, one for each group."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from apps.core.errors import InvalidRequest, PermissionDenied
from apps.dead_letters import bulk_states
from apps.dead_letters.bulk import control, plan, report
from apps.dead_letters.errors import GroupIsTaken, GroupNotFound, OperationHasMoved, OperationNotFound
from apps.dead_letters.models import BulkOperation, BulkSlot
from tests.dead_letters.conftest import MakeLetter
from tests.dead_letters.operations import Letters, counted, states_of, tick
from tests.dead_letters.test_triage import person
from tests.time import age

pytestmark = pytest.mark.django_db


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


@pytest.mark.parametrize("query", ["no-such-words", "group:ffff", "owner:nobody", '"no such" kind:x'])
def test_one_whose_words_are_in_no_group_ends_too(letters: Letters, query: str) -> None:
    operation = counted(query=query)
    assert (operation.state, operation.total) == ("done", 0)


@pytest.mark.parametrize(
    ("what", "error", "param"),
    [
        ({}, InvalidRequest, "groups"),
        ({"query": "colour:red"}, InvalidRequest, "q"),
        ({"query": "state:blue"}, InvalidRequest, "q"),
        ({"groups": ["none"]}, GroupNotFound, None),
        ({"groups": ["a\0b"]}, GroupNotFound, None),
        ({"groups": ["\ud800"]}, GroupNotFound, None),
        ({"groups": [str(number) for number in range(1001)]}, InvalidRequest, "groups"),
        ({"source": uuid4()}, OperationNotFound, None),
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
