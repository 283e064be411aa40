"""Counts stay exact while tasks die, people decide and clocks fold at the same moment."""

import threading
from contextlib import suppress

import pytest
from django.db import transaction

from apps.core.errors import InvalidRequest
from apps.dead_letters import decisions, grouping, tallies, triage
from apps.dead_letters.errors import LetterIsDecided
from apps.dead_letters.models import DeadLetter, FailureGroup, GroupHour, GroupTally
from apps.tasks import kinds
from apps.tasks.lifecycle.cancel import cancel
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import Task
from tests.dead_letters.conftest import MakeLetter, deaths
from tests.dead_letters.operations import Letters
from tests.dead_letters.test_tallies import counts, state_of, truth
from tests.dead_letters.test_triage import broken
from tests.races import together, wait_for_a_waiting_session
from tests.tasks.conftest import MakeKind, MakeTask

pytestmark = pytest.mark.django_db


def decide_something(number: int) -> None:
    """Redrive, discard or restore some letter; of a redriven one the task is cancelled."""
    letter = DeadLetter.objects.order_by("?").first()
    assert letter is not None
    with suppress(LetterIsDecided):
        match number:
            case 3:
                triage.redrive(letter.pk)
                cancel(letter.task_id)
            case 4:
                triage.discard(letter.pk, reason="r")
            case _:
                triage.restore(letter.pk)


@pytest.mark.django_db(transaction=True)
def test_a_task_that_was_dying_while_its_group_was_resolved_is_a_regression(
    letters: Letters, make_task: MakeTask
) -> None:
    late = deaths([make_task(kinds.find(letters[0].kind))], [InvalidRequest("It does not fit.")])
    decisions.discard([one.pk for one in letters], actor=None, reason="r", code="other")
    with transaction.atomic():
        finish(late)
        assert together(1, lambda _: state_of(letters[0])) == ["resolved"]
    assert state_of(letters[0]) == "regressed"


@pytest.mark.django_db(transaction=True)
def test_counts_are_exact_while_eight_die_decide_and_fold_at_once(
    make_task: MakeTask, make_kind: MakeKind, make_letter: MakeLetter
) -> None:
    kind = make_kind()
    causes = [InvalidRequest(f"cause {letter}") for letter in "abcd"]
    for cause in causes:
        make_letter(kind=kind, error=cause)
    endings = deaths([make_task(kind) for _ in range(60)], causes * 15)

    def work(number: int) -> None:
        if number < 3:
            for step in range(0, 20, 2):
                finish(endings[number * 20 + step : number * 20 + step + 2])
        elif number < 6:
            for _ in range(12):
                decide_something(number)
        else:
            for _ in range(15):
                tallies.fold()

    assert together(8, work) == [None] * 8
    for fingerprint in FailureGroup.objects.values_list("pk", flat=True):
        assert counts(fingerprint) == truth(fingerprint)
    assert DeadLetter.objects.count() == 64 + Task.objects.filter(cycle__gt=1, state="dead").count()
    assert broken() == []


@pytest.mark.django_db(transaction=True)
def test_eight_folds_at_once_count_each_tally_once(
    make_task: MakeTask, make_kind: MakeKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tallies, "BATCH", 7)
    kind = make_kind()
    causes = [InvalidRequest(f"cause {letter}") for letter in "abcdefghij"]
    for round_ in range(4):
        order = causes if round_ % 2 else causes[::-1]
        endings = deaths([make_task(kind) for _ in range(100)], order * 10)
        for start in range(0, 100, 5):
            finish(endings[start : start + 5])
        while GroupTally.objects.exists():
            assert [one for one in together(8, lambda _: tallies.fold()) if not isinstance(one, int)] == []
    assert set(FailureGroup.objects.values_list("died_count", "open_count")) == {(40, 40)}
    assert sum(GroupHour.objects.values_list("died", flat=True)) == 400


@pytest.mark.django_db(transaction=True)
def test_a_fold_waits_for_who_decides_about_the_group_and_nobody_who_dies_waits_for_it(
    letters: Letters, make_task: MakeTask
) -> None:
    late = deaths([make_task(kinds.find(letters[0].kind))], [InvalidRequest("It does not fit.")])
    with transaction.atomic():
        tallies.fold()
        assert together(1, lambda _: finish(late)) == [["dead"]]
    with transaction.atomic():
        grouping.note(letters[0].group_id, text="mine")
        folding = threading.Thread(target=lambda: together(1, lambda _: tallies.fold()))
        folding.start()
        wait_for_a_waiting_session()
    folding.join(10)
    row = FailureGroup.objects.get()
    assert (row.note, row.open_count) == ("mine", 31)
