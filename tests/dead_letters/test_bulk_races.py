"""People who start, cancel, discard and restore at the moment a bulk operation releases undo nothing of it."""

from typing import Any

import pytest

from apps.access.models import AuditEntry
from apps.dead_letters import triage
from apps.dead_letters.bulk import control, pacer
from apps.dead_letters.errors import OperationHasMoved
from apps.dead_letters.models import BulkOperation, DeadLetter
from tests.dead_letters.operations import Letters, age_of, begun, counted, states_of, tick
from tests.dead_letters.test_triage import broken
from tests.races import together

pytestmark = pytest.mark.django_db


@pytest.mark.django_db(transaction=True)
def test_a_cancel_that_races_the_release_leaves_what_was_not_released(letters: Letters) -> None:
    operation = begun(what={"query": "state:open"}, canary=0, rate=10)

    def act(number: int) -> Any:
        if number == 7:
            return control.cancel(operation.pk).state
        age_of(BulkOperation.objects.get(pk=operation.pk), "paced_at", 0.5)
        return pacer.tick()

    found = together(8, act)
    assert found[7] == "cancelled"
    tick(operation, seconds=60)
    assert operation.state == "cancelled"
    assert states_of(letters).get("redriven", 0) == operation.released
    assert AuditEntry.objects.filter(action="redrive").count() == operation.released
    assert broken() == []


@pytest.mark.django_db(transaction=True)
def test_of_eight_who_start_or_cancel_at_once_each_finds_what_the_one_before_has_made(letters: Letters) -> None:
    operation = counted(query="state:open")
    verbs = (control.start, control.undo, control.cancel, control.start)
    found = together(8, lambda number: verbs[number % 4](operation.pk).state)
    assert {type(one) for one in found} <= {str, OperationHasMoved}
    assert [one for one in found if one == "cancelled"] == ["cancelled"]
    operation.refresh_from_db()
    assert operation.state == "cancelled"


@pytest.mark.django_db(transaction=True)
def test_a_restore_of_an_operation_s_discards_races_who_discards_and_restores_by_hand(letters: Letters) -> None:
    discard = begun("discard", what={"query": "state:open"}, reason="r")
    tick(discard, seconds=1)
    back = begun("restore", what={"source": discard.pk})

    def act(number: int) -> None:
        for letter in letters[number * 4 : number * 4 + 4]:
            try:
                triage.restore(letter.pk)
                triage.discard(letter.pk, reason="again")
            except triage.LetterIsDecided:
                continue

    together(8, lambda number: tick(back, seconds=1) if number == 7 else act(number))
    tick(back, seconds=1)
    tick(back)
    assert (back.state, back.released + back.skipped) == ("done", 30)
    for letter in DeadLetter.objects.all():
        moves = AuditEntry.objects.filter(object_id=str(letter.pk)).order_by("at", "id")
        assert [entry.after["state"] for entry in moves][-1] == letter.state
    assert broken() == []
