"""People who start, cancel, discard and restore at the moment a bulk operation releases undo nothing of it."""

from pathlib import Path
from typing import Any

import pytest

from apps.access.models import AuditEntry
from apps.core import failpoints
from apps.dead_letters import triage
from apps.dead_letters.bulk import control, pacer, plan
from apps.dead_letters.errors import GroupIsTaken, OperationHasMoved
from apps.dead_letters.models import BulkOperation, DeadLetter
from tests.dead_letters.conftest import MakeLetter
from tests.dead_letters.operations import Letters, age_of, begun, counted, states_of, tick
from tests.dead_letters.test_triage import broken
from tests.races import together, wait_for_a_waiting_session
from tests.tasks.conftest import MakeKind

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


@pytest.mark.django_db(transaction=True)
def test_who_names_groups_of_which_a_count_has_some_and_wants_others_waits_and_is_refused(
    make_letter: MakeLetter, make_kind: MakeKind, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kinds = [make_kind(), make_kind()]
    letters = [make_letter(kind=kinds[0]), make_letter(kind=kinds[1])]
    if letters[0].group_id < letters[1].group_id:  # the count is to take the later group first
        letters.pop(0).delete()
        letters.append(make_letter(kind=kinds[0]))
    operation = plan.create("redrive", query="state:open")
    monkeypatch.setattr(plan, "CHUNK", 1)
    go_on = tmp_path / "go-on"
    failpoints.arm(f"bulk.after_freeze:pause={go_on}*1")

    def act(number: int) -> Any:
        if number == 0:
            return pacer.tick()
        while not (tmp_path / "go-on.reached").exists():
            pass
        if number == 1:
            return plan.create("redrive", groups=[letter.group_id for letter in letters])
        wait_for_a_waiting_session()
        return go_on.touch()

    try:
        found = together(3, act)
    finally:
        failpoints.arm("")
    operation.refresh_from_db()
    assert (found[0], operation.state, operation.pending) == (1, "ready", 2)
    assert isinstance(found[1], GroupIsTaken)
