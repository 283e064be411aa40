"""A bulk operation runs in somebody's name: it stops once they may not run it any more, and goes on in another's."""

from typing import Any

import pytest

from apps.access.models import AuditEntry
from apps.dead_letters.bulk import control
from apps.dead_letters.models import DeadLetter
from tests.dead_letters.operations import Letters, counted, end, tick
from tests.dead_letters.test_triage import person

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("change", ["deleted", "forbidden", "inactive", "not staff"])
@pytest.mark.parametrize("when", ["holding", "running"])
def test_an_operation_stops_once_who_started_it_may_not_do_so_until_another_answers_for_it(
    letters: Letters, django_user_model: Any, change: str, when: str
) -> None:
    starter, another = (person(django_user_model, "redrive_bulkoperation") for _ in range(2))
    operation = counted(query="state:open", actor=starter)
    control.start(operation.pk, canary=0, rate=0.1, actor=starter, reason="mended")
    name = starter.username
    if when == "running":
        tick(operation, seconds=11)
        assert tick(operation, seconds=60).released == 1
    before = operation.released
    match change:
        case "deleted":
            starter.delete()
        case "forbidden":
            starter.user_permissions.clear()
        case "not staff":
            django_user_model.objects.filter(username=name).update(is_staff=False)
        case _:
            django_user_model.objects.filter(username=name).update(is_active=False)
    tick(operation, seconds=11)
    assert (operation.state, operation.released) == ("stopped", before)
    assert operation.stop_reason.startswith(f"{name} may not do this any more.")
    control.resume(operation.pk, actor=another)
    control.change_pace(operation.pk, rate=100, actor=another)
    tick(operation, seconds=60)
    assert (operation.state, operation.released, operation.started_by) == ("running", 30, another.username)
    entries = AuditEntry.objects.filter(action="redrive").values_list("actor", "reason")
    assert sorted(entries) == sorted([(name, "mended")] * before + [(another.username, "mended")] * (30 - before))
    assert operation.pk in set(DeadLetter.objects.values_list("operation_id", flat=True))


def test_canaries_that_a_barred_starter_could_not_send_are_sent_by_who_resumes(
    letters: Letters, django_user_model: Any
) -> None:
    starter = person(django_user_model, "redrive_bulkoperation")
    operation = counted(query="state:open", actor=starter)
    control.start(operation.pk, canary=3, actor=starter)
    starter.user_permissions.clear()
    tick(operation, seconds=11)
    assert (operation.state, operation.released) == ("stopped", 0)
    assert control.resume(operation.pk).state == "canary"
    tick(operation, seconds=60)
    assert (operation.state, operation.released) == ("canary", 3)
    end(letters, dead=1)
    tick(operation, seconds=60)
    assert (operation.state, operation.released) == ("stopped", 3)
    assert control.resume(operation.pk).state == "running"  # that somebody saw


def test_what_failed_again_while_nobody_answered_for_it_is_not_let_pass(
    letters: Letters, django_user_model: Any
) -> None:
    starter = person(django_user_model, "redrive_bulkoperation")
    operation = counted(query="state:open", actor=starter)
    control.start(operation.pk, canary=0, max_in_flight=10, actor=starter)
    tick(operation, seconds=11)
    tick(operation, seconds=60)
    starter.user_permissions.clear()
    tick(operation, seconds=60)
    assert (operation.state, operation.released) == ("stopped", 10)
    end(letters, dead=10)
    tick(operation)
    control.resume(operation.pk)
    tick(operation, seconds=60)
    assert (operation.state, operation.released, operation.failed) == ("stopped", 10, 10)
    assert "10 of 10" in operation.stop_reason
