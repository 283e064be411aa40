"""What people decide about a letter is decided once, by one of them, and kept with who and why."""

import threading
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission
from django.db import connection, transaction

from apps.access import reasons
from apps.access.models import AuditEntry
from apps.core.errors import InvalidRequest, PermissionDenied
from apps.dead_letters import queries, states, triage
from apps.dead_letters.errors import LetterIsDecided, LetterNotFound
from apps.dead_letters.models import DeadLetter
from apps.tasks.lifecycle.revive import revive
from apps.tasks.models import Task
from apps.tasks.verify import verify
from tests.dead_letters.conftest import MakeLetter, die
from tests.races import together, wait_for_a_waiting_session

pytestmark = pytest.mark.django_db
VERBS = {"redrive": triage.redrive, "discard": triage.discard}


def now(letter: DeadLetter) -> tuple[str, str, int]:
    """The letter's state, its task's and its task's cycle."""
    letter.refresh_from_db()
    task = Task.objects.get(pk=letter.task_id)
    return letter.state, task.state, task.cycle


def broken() -> list[str]:
    return [invariant.name for invariant, count, _ in verify() if count]


def person(users: Any, *codenames: str) -> Any:
    found = users.objects.create_user(f"person-{uuid4().hex[:8]}", is_staff=True)
    found.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return found


def test_a_redrive_puts_the_task_back_to_work(make_letter: MakeLetter, django_user_model: Any) -> None:
    letter = make_letter()
    actor = person(django_user_model, "redrive_deadletter")
    triage.redrive(letter.pk, actor=actor, reason="mended")
    assert now(letter) == ("redriven", "pending", 2)
    assert (letter.decided_by, letter.reason) == (actor.username, "mended")
    assert letter.decided_at is not None
    [entry] = AuditEntry.objects.all()
    assert (entry.action, entry.actor, entry.reason) == ("redrive", actor.username, "mended")
    assert (entry.object_id, entry.before, entry.after) == (str(letter.pk), {"state": "open"}, {"state": "redriven"})
    assert broken() == []


def test_a_discard_leaves_the_task_dead(make_letter: MakeLetter) -> None:
    letter = make_letter()
    triage.discard(letter.pk, reason="of no use")
    assert now(letter) == ("discarded", "dead", 1)
    assert (letter.decided_by, letter.reason) == ("command line", "of no use")
    assert [entry.action for entry in AuditEntry.objects.all()] == ["discard"]
    assert broken() == []


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_nothing_is_discarded_without_a_reason(make_letter: MakeLetter, reason: str) -> None:
    letter = make_letter()
    with pytest.raises(InvalidRequest) as refused:
        triage.discard(letter.pk, reason=reason)
    assert refused.value.param == "reason"
    assert now(letter) == ("open", "dead", 1)


@pytest.mark.parametrize("verb", VERBS)
def test_who_may_not_decide_decides_nothing(make_letter: MakeLetter, django_user_model: Any, verb: str) -> None:
    letter = make_letter()
    with pytest.raises(PermissionDenied):
        VERBS[verb](letter.pk, actor=person(django_user_model, "view_deadletter"), reason="r")
    assert now(letter) == ("open", "dead", 1)
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("verb", VERBS)
def test_there_is_nothing_to_decide_about_a_letter_that_is_not_there(db: None, verb: str) -> None:
    with pytest.raises(LetterNotFound):
        VERBS[verb](uuid4(), reason="r")


@pytest.mark.parametrize("state", states.ALL)
@pytest.mark.parametrize(("verb", "target"), [("redrive", "redriven"), ("discard", "discarded")])
def test_each_verb_moves_a_letter_only_as_the_table_allows(
    make_letter: MakeLetter, state: str, verb: str, target: str
) -> None:
    letter = make_letter()
    if state == states.REDRIVEN:
        triage.redrive(letter.pk)
    if state == states.DISCARDED:
        triage.discard(letter.pk, reason="r")
    before, entries = now(letter), AuditEntry.objects.count()
    if target in states.TRANSITIONS[state]:
        VERBS[verb](letter.pk, reason="r")
        assert now(letter)[0] == target
    else:
        with pytest.raises(LetterIsDecided, match=state):
            VERBS[verb](letter.pk, reason="r")
        assert now(letter) == before
        assert AuditEntry.objects.count() == entries


def test_the_table_holds_no_move_that_no_verb_makes() -> None:
    targets = {states.REDRIVEN, states.DISCARDED, states.OPEN}
    assert set().union(*states.TRANSITIONS.values()) == targets
    assert set(states.TRANSITIONS) == set(states.ALL)


def test_a_letter_of_a_task_that_is_not_dead_cannot_be_redriven(make_letter: MakeLetter) -> None:
    letter = make_letter()
    revive([letter.task_id])  # no verb does that
    with pytest.raises(LetterIsDecided, match="not dead"):
        triage.redrive(letter.pk)
    letter.refresh_from_db()
    assert letter.state == "open"


def test_a_task_that_dies_again_has_another_letter_and_the_old_one_redrives_nothing(make_letter: MakeLetter) -> None:
    first = make_letter()
    triage.redrive(first.pk)
    task = Task.objects.get(pk=first.task_id)
    die(task)
    second = DeadLetter.objects.get(task_id=task.pk, cycle=2)
    with pytest.raises(LetterIsDecided):
        triage.redrive(first.pk)
    assert now(second) == ("open", "dead", 2)
    [shown] = queries.of_tasks([Task.objects.get(pk=task.pk)]).values()
    assert shown == {"id": f"letter_{second.pk.hex}", "state": "open"}
    triage.redrive(second.pk)
    assert now(second) == ("redriven", "pending", 3)
    assert broken() == []


@pytest.mark.django_db(transaction=True)
def test_of_eight_who_redrive_and_discard_at_once_one_wins(make_letter: MakeLetter) -> None:
    for _ in range(3):
        letter = make_letter()

        def act(number: int, letter: DeadLetter = letter) -> str:
            verb = "discard" if number % 2 else "redrive"
            return VERBS[verb](letter.pk, reason=f"by {number}").state

        found = together(8, act)
        won = [one for one in found if isinstance(one, str)]
        assert len(won) == 1
        assert [type(one) for one in found if not isinstance(one, str)] == [LetterIsDecided] * 7
        state, task_state, cycle = now(letter)
        assert (state, task_state, cycle) in {("redriven", "pending", 2), ("discarded", "dead", 1)}
        [entry] = AuditEntry.objects.filter(object_id=str(letter.pk))
        assert entry.after == {"state": state}
        assert entry.reason == letter.reason
    assert broken() == []


@pytest.mark.django_db(transaction=True)
def test_a_redrive_waits_for_the_task_before_it_holds_the_letter(make_letter: MakeLetter) -> None:
    letter = make_letter()
    ended: list[str] = []

    def redrive() -> None:
        try:
            ended.append(triage.redrive(letter.pk).state)
        finally:
            connection.close()

    waiting = threading.Thread(target=redrive)
    with transaction.atomic():
        Task.objects.select_for_update().get(pk=letter.task_id)
        waiting.start()
        wait_for_a_waiting_session()
        assert DeadLetter.objects.select_for_update(nowait=True).get(pk=letter.pk).state == "open"
    waiting.join(10)
    assert ended == ["redriven"]


def test_a_discarded_letter_is_opened_again_and_then_decided_anew(make_letter: MakeLetter) -> None:
    letter = make_letter()
    triage.discard(letter.pk, reason="of no use", code="duplicate")
    triage.restore(letter.pk, reason="it was of use")
    assert now(letter) == ("open", "dead", 1)
    assert (letter.decided_at, letter.decided_by, letter.reason, letter.discard_code) == (None, "", "", "")
    entry = AuditEntry.objects.get(action="restore")
    assert (entry.reason, entry.before, entry.after) == ("it was of use", {"state": "discarded"}, {"state": "open"})
    triage.redrive(letter.pk)
    with pytest.raises(LetterIsDecided, match="redriven, not discarded"):
        triage.restore(letter.pk)
    assert broken() == []


def test_only_who_may_discard_may_restore(make_letter: MakeLetter, django_user_model: Any) -> None:
    letter = make_letter()
    triage.discard(letter.pk, reason="r")
    with pytest.raises(PermissionDenied):
        triage.restore(letter.pk, actor=person(django_user_model, "redrive_deadletter"))
    triage.restore(letter.pk, actor=person(django_user_model, "discard_deadletter"))
    with pytest.raises(LetterNotFound):
        triage.restore(uuid4())
    with pytest.raises(LetterIsDecided, match="open, not discarded"):
        triage.restore(letter.pk)


def test_a_letter_whose_task_is_gone_stays_discarded(make_letter: MakeLetter) -> None:
    letter = make_letter()
    triage.discard(letter.pk, reason="r")
    Task.objects.filter(pk=letter.task_id).delete()
    with pytest.raises(LetterIsDecided, match="deleted by retention"):
        triage.restore(letter.pk)
    letter.refresh_from_db()
    assert letter.state == "discarded"


@pytest.mark.parametrize("code", ["", "no_such", "x" * 1000, "a\0b"])
def test_a_discard_has_a_reason_code_that_is_known(make_letter: MakeLetter, code: str) -> None:
    letter = make_letter()
    with pytest.raises(InvalidRequest) as refused:
        triage.discard(letter.pk, reason="r", code=code)
    assert refused.value.param == "code"
    assert now(letter) == ("open", "dead", 1)


@pytest.mark.parametrize("verb", [*VERBS.values(), triage.restore])
def test_a_reason_is_kept_as_postgres_can_hold_it_and_is_not_a_book(make_letter: MakeLetter, verb: Any) -> None:
    letter = make_letter()
    if verb is triage.restore:
        triage.discard(letter.pk, reason="r")
    with pytest.raises(InvalidRequest) as refused:
        verb(letter.pk, reason="x" * (reasons.MOST + 1))
    assert refused.value.param == "reason"
    verb(letter.pk, reason=" half\ud800 a\0 smile\n ")
    assert AuditEntry.objects.latest("at", "id").reason == "half a smile"


def test_who_may_not_redrive_reviews_nothing(make_letter: MakeLetter, django_user_model: Any) -> None:
    letter, viewer = make_letter(), person(django_user_model, "view_deadletter")
    with pytest.raises(PermissionDenied):
        triage.review([letter.pk], actor=viewer)
    with pytest.raises(PermissionDenied):
        triage.take_for_review(1, actor=viewer)
    letter.refresh_from_db()
    assert letter.reviewed_at is None


def test_a_letter_is_reviewed_once_while_it_is_open(make_letter: MakeLetter) -> None:
    first, second, decided = (make_letter() for _ in range(3))
    triage.discard(decided.pk, reason="r")
    everything = [first.pk, second.pk, decided.pk, uuid4()]
    assert triage.review([first.pk]) == 1
    first.refresh_from_db()
    seen = first.reviewed_at
    assert triage.review(everything) == 1
    assert triage.review(everything) == triage.review([]) == 0
    first.refresh_from_db()
    decided.refresh_from_db()
    assert (first.reviewed_at, decided.reviewed_at, first.state) == (seen, None, "open")
    assert broken() == []
