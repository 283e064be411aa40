"""A bulk operation decides each letter once, at its pace, and stops where too many fail again."""

import pytest

from apps.access.models import AuditEntry
from apps.core.errors import InvalidRequest
from apps.dead_letters import triage
from apps.dead_letters.bulk import control, report
from apps.dead_letters.errors import OperationHasMoved
from apps.dead_letters.models import BulkItem, BulkSlot, DeadLetter
from apps.tasks.lifecycle.cancel import cancel as cancel_task
from tests.dead_letters.operations import Letters, begun, counted, end, states_of, tick
from tests.dead_letters.test_triage import broken

pytestmark = pytest.mark.django_db


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


def test_a_redriven_task_that_is_cancelled_is_told_apart(letters: Letters) -> None:
    operation = begun(what={"groups": [letters[0].group_id]})
    item = BulkItem.objects.filter(operation_id=operation.pk, state="released").first()
    assert item is not None
    cancel_task(item.task_id)
    tick(operation)
    assert (operation.state, operation.cancelled) == ("stopped", 1)
