"""Whatever changes under a bulk operation, and whoever decides beside it: each letter is decided once, or skipped."""

import time
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from apps.access.keys import set_disabled
from apps.access.models import AuditEntry, Project
from apps.core.errors import InvalidRequest
from apps.dead_letters import tallies, triage
from apps.dead_letters.bulk import control, pacer, plan, report
from apps.dead_letters.models import BulkItem, BulkOperation, BulkSlot, DeadLetter, FailureGroup
from apps.tasks import kinds
from apps.tasks.kinds import Call
from apps.tasks.models import Task, TaskPayload
from tests.conftest import MakeKey
from tests.dead_letters.conftest import MakeLetter
from tests.dead_letters.operations import Letters, age_of, begun, counted, end, states_of, tick
from tests.dead_letters.test_triage import broken
from tests.tasks.conftest import MakeKind

pytestmark = pytest.mark.django_db


def test_a_letter_that_retention_deletes_meanwhile_is_skipped(letters: Letters) -> None:
    operation = counted(query="state:open")
    DeadLetter.objects.filter(pk=letters[0].pk).delete()
    Task.objects.filter(pk=letters[1].task_id).delete()
    control.start(operation.pk, canary=0)
    tick(operation, seconds=11)
    tick(operation, seconds=60)
    assert (operation.released, operation.skipped) == (28, 2)
    assert sorted(report.of(operation).skips) == [
        ("it was deleted by retention", 1), ("its task is gone or not dead any more", 1),
    ]  # fmt: skip


def test_what_nobody_could_run_is_skipped_by_a_redrive_and_taken_by_a_discard(
    letters: Letters, make_letter: MakeLetter, make_kind: MakeKind, make_key: MakeKey
) -> None:
    key, _ = make_key()
    of_key = make_letter(kind=kinds.find(letters[0].kind), api_key_id=key.pk, project_id=key.project_id)
    gone = make_letter(kind=make_kind())
    type(key).objects.filter(pk=key.pk).update(disabled_at=timezone.now())
    kinds._kinds.pop(gone.kind)
    operation = counted(query="state:open")
    assert (operation.total, operation.pending) == (32, 30)
    assert sorted(report.of(operation).skips) == [("its API key is disabled", 1), ("no handler knows its kind", 1)]
    control.cancel(operation.pk)
    discard = counted("discard", query="state:open")
    assert (discard.total, discard.pending) == (32, 32)
    assert {tuple(row) for row in discard.breakdown["key"]} == {("no API key", 31), (str(of_key.api_key), 1)}


def test_what_was_counted_late_waits_its_hour_for_a_start_all_the_same(letters: Letters) -> None:
    operation = plan.create("redrive", query="state:open")
    DeadLetter.objects.update(created_at=operation.created_at - timedelta(hours=3))
    age_of(operation, "created_at", 2 * 3600)  # the clock was away
    assert tick(operation).state == "ready"
    assert tick(operation).state == "ready"
    age_of(operation, "counted_at", 3601)
    assert tick(operation).state == "cancelled"


@pytest.mark.parametrize(
    ("rate", "step", "steps"),
    [(0.02, 0.9, 60), (0.01, 1.2, 90), (0.3, 0.5, 40), (2.3, 0.3, 15), (20, 0.5, 2), (3, 1.2, 4)],
)
def test_the_pace_is_exact_over_time(letters: Letters, rate: float, step: float, steps: int) -> None:
    operation = counted("discard", query="state:open")
    control.start(operation.pk, reason="r", rate=rate)
    began = time.monotonic()
    tick(operation, seconds=11)
    for number in range(1, steps + 1):
        tick(operation, seconds=step)
        passed = step * number + time.monotonic() - began
        assert int(rate * step * number + 1e-3) <= operation.released <= min(rate * passed + 1e-3, 30)


def test_the_fastest_pace_is_a_thousand_a_second_and_a_clock_that_was_away_starts_gently(letters: Letters) -> None:
    operation = counted("discard", query="state:open")
    control.start(operation.pk, reason="r", rate=1000)
    tick(operation, seconds=11)
    tick(operation, seconds=0.02)
    assert operation.released >= 20
    tick(operation, seconds=1)
    tick(operation)
    assert operation.state == "done"
    slow = begun("restore", what={"source": operation.pk}, rate=5)
    tick(slow, seconds=3600)
    assert slow.released == 5 * pacer.LONGEST_GAP + 1


@pytest.mark.parametrize(
    ("terms", "param"),
    [({"rate": value}, "rate") for value in (0, 0.009, 1000.1, -1, float("nan"), float("inf"))]
    + [({"max_in_flight": value}, "max_in_flight") for value in (0, 5001)]
    + [({"canary": value}, "canary") for value in (-1, 31)]
    + [({"stop_percent": value}, "stop_percent") for value in (0, 101)],
)
def test_terms_that_make_no_sense_start_nothing(letters: Letters, terms: Any, param: str) -> None:
    operation = counted(query="state:open")
    with pytest.raises(InvalidRequest) as refused:
        control.start(operation.pk, **terms)
    assert refused.value.param == param
    operation.refresh_from_db()
    assert operation.state == "ready"


def test_canaries_may_be_all_there_are_and_then_there_is_nothing_to_stop(letters: Letters) -> None:
    operation = begun(what={"query": "state:open"}, canary=30)
    assert (operation.state, operation.released) == ("canary", 30)
    end(letters, dead=5)
    tick(operation)
    assert (operation.state, operation.succeeded, operation.failed) == ("done", 25, 5)
    assert not BulkSlot.objects.exists()


def test_canaries_that_others_have_decided_are_replaced(letters: Letters) -> None:
    operation = counted(query="state:open")
    control.start(operation.pk, canary=3)
    for letter in letters[:5]:
        triage.discard(letter.pk, reason="r")
    tick(operation, seconds=11)
    while operation.released < 3:
        tick(operation)
    assert (operation.state, operation.released, operation.skipped) == ("canary", 3, 5)
    end(letters)
    assert tick(operation).state == "running"


def test_an_operation_of_words_that_are_understood_no_longer_ends_and_holds_up_no_other(
    letters: Letters, make_letter: MakeLetter
) -> None:
    Project.objects.create(name="soon gone")
    lost = plan.create("redrive", query='project:"soon gone"')
    other = plan.create("redrive", query="state:open")
    odd = plan.create("redrive", query="kind:x")
    BulkOperation.objects.filter(pk=odd.pk).update(query="colour:red")
    Project.objects.all().delete()
    tick(lost)
    odd.refresh_from_db()
    other.refresh_from_db()
    assert (lost.state, odd.state, other.state) == ("cancelled", "cancelled", "ready")
    assert "There is no project" in lost.stop_reason
    assert "There is no colour:" in odd.stop_reason


def test_one_that_fails_in_a_way_nobody_thought_of_holds_up_no_other(letters: Letters) -> None:
    odd = plan.create("redrive", query="kind:x")
    other = plan.create("redrive", query="state:open")
    with connection.cursor() as cursor:
        cursor.execute(
            f"ALTER TABLE dead_letters_bulkoperation ADD CONSTRAINT odd CHECK (id <> '{odd.pk}' OR state = 'counting') "
            "NOT VALID"
        )
    tick(other)
    odd.refresh_from_db()
    assert (odd.state, other.state) == ("counting", "ready")


def test_a_second_operation_on_overlapping_words_takes_what_the_first_has_not(
    letters: Letters, make_letter: MakeLetter
) -> None:
    for _ in range(3):
        make_letter()
    first, second = counted(query=f"kind:{letters[0].kind}"), counted(query="state:open")
    assert (first.pending, second.pending, second.skipped) == (30, 3, 30)
    for one in (first, second):
        control.start(one.pk, canary=0)
        tick(one, seconds=11)
        tick(one, seconds=60)
    assert states_of(letters) == {"redriven": 30}
    assert AuditEntry.objects.filter(action="redrive").count() == 33
    assert broken() == []


def test_payloads_that_cannot_be_read_hold_nothing_up(
    letters: Letters, make_letter: MakeLetter, make_kind: MakeKind
) -> None:
    def call(args: Any) -> Call:
        return Call("chat", args.model, 1000)

    def upcast(args: Any) -> Any:
        return {"model": args["name"].strip()}

    kind = make_kind(call=call, version=2, upcasters={1: upcast})
    odd = ["{}", '{"name": 5}', '{"name": "m"}', "no JSON", "[1]", "[" * 50_000, '{"model": "m"}', "null"]
    for body in odd:
        letter = make_letter(kind=kind)
        Task.objects.filter(pk=letter.task_id).update(schema_version=1 if "model" not in body else 2)
        TaskPayload.objects.filter(task_id=letter.task_id).update(body=body)
    operation = counted(query=f"kind:{kind.name}")
    assert (operation.state, operation.pending) == ("ready", len(odd))
    assert dict(map(tuple, operation.breakdown["model"])) == {"m": 2, f"no model ({kind.name})": len(odd) - 2}
    assert operation.cost_nusd  # of the two that could be read


def test_the_breakdown_tells_how_old_letters_are(letters: Letters) -> None:
    for number, hours in ((5, 2), (4, 30), (3, 24 * 8)):
        for letter in letters[:number]:
            DeadLetter.objects.filter(pk=letter.pk).update(created_at=letter.created_at - timedelta(hours=hours))
    operation = counted(query="state:open")
    assert operation.breakdown["age"] == [
        ["less than 1 h", 25], ["1 h to 1 day", 1], ["1 to 7 days", 1], ["more than 7 days", 3],
    ]  # fmt: skip
    assert operation.breakdown["group"] == [[letters[0].group_id, str(letters[0].group), 30]]


def test_twenty_five_thousand_letters_are_counted_in_chunks_each_once(
    letters: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacer, "COUNTED_AT_ONCE", 0.0)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO dead_letters_deadletter (id, task_id, cycle, group_id, project_id, kind, queue, code, attempts,
              state, created_at, decided_by, reason)
            SELECT gen_random_uuid(), gen_random_uuid(), 1, l.group_id, l.project_id, l.kind, l.queue, l.code, 1,
              'open', now(), '', '' FROM dead_letters_deadletter l, generate_series(1, 25000) WHERE l.id = %s
            """,
            [letters[0].pk],
        )
    operation = plan.create("discard", groups=[letters[0].group_id])
    tick(operation)
    assert (operation.state, operation.total) == ("counting", plan.CHUNK)
    tick(operation)
    assert (operation.state, operation.total, operation.pending) == ("ready", 25_030, 25_030)
    assert BulkItem.objects.filter(operation_id=operation.pk).count() == 25_030
    tallies.fold()
    assert FailureGroup.objects.get().open_count == 25_030


def test_what_is_restored_by_hand_is_no_longer_of_the_operation(letters: Letters) -> None:
    discard = begun("discard", what={"query": "state:open"}, reason="r")
    tick(discard, seconds=1)
    triage.restore(letters[0].pk)
    triage.restore(letters[1].pk)
    triage.discard(letters[1].pk, reason="by hand")
    assert counted("restore", source=discard.pk).total == 28


def test_letters_of_a_key_that_is_disabled_while_it_runs_are_left_alone(
    make_letter: MakeLetter, make_kind: MakeKind, make_key: MakeKey
) -> None:
    key, _ = make_key()
    kind = make_kind()
    rows = [make_letter(kind=kind, api_key_id=key.pk, project_id=key.project_id) for _ in range(3)]
    operation = begun(what={"query": "state:open"}, rate=1.0, canary=1)
    assert (operation.state, operation.released) == ("canary", 1)
    end(rows)
    set_disabled(key=key, disabled=True)
    tick(operation)
    tick(operation, seconds=3)
    tick(operation)
    assert (operation.state, operation.released, operation.skipped) == ("done", 1, 2)
    assert report.of(operation).skips == [("its API key is disabled", 2)]
    assert states_of(rows) == {"open": 2, "redriven": 1}
