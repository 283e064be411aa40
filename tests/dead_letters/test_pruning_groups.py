"""What is left of groups, hours and bulk operations goes in its time, and never what a letter still needs."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from apps.core.errors import InvalidRequest
from apps.dead_letters import retention, tallies, triage
from apps.dead_letters.bulk import control
from apps.dead_letters.models import (
    BulkItem,
    BulkOperation,
    DeadLetter,
    FailureGroup,
    GroupHour,
    GroupKey,
    GroupTally,
)
from apps.tasks import kinds
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import Task
from tests.dead_letters.conftest import MakeLetter, deaths
from tests.dead_letters.operations import Letters, begun, counted, states_of, tick
from tests.dead_letters.test_triage import broken
from tests.races import together, wait_for_a_waiting_session
from tests.tasks.conftest import MakeTask
from tests.time import age

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _all_invariants_hold() -> Iterator[None]:
    yield
    assert broken() == []


@pytest.fixture
def left(make_letter: MakeLetter) -> FailureGroup:
    """A group of long ago whose letters are gone."""
    letter = make_letter()
    triage.discard(letter.pk, reason="r")
    tallies.fold()
    DeadLetter.objects.all().delete()
    Task.objects.all().delete()
    group = FailureGroup.objects.get()
    age(group, days=31)
    return group


def test_a_group_without_letters_goes_with_whom_it_hit(left: FailureGroup, make_letter: MakeLetter) -> None:
    other = make_letter()
    tallies.fold()
    age(other.group, days=31)
    assert GroupKey.objects.count() == 2
    assert retention.prune_groups() == 1
    assert FailureGroup.objects.get().pk == other.group_id == GroupKey.objects.get().group_id
    assert retention.prune_groups() == 0


def test_a_group_that_failed_lately_stays(left: FailureGroup) -> None:
    FailureGroup.objects.update(last_seen=timezone.now() - timedelta(days=29))
    assert retention.prune_groups() == 0


def test_hours_that_no_page_shows_go(left: FailureGroup) -> None:
    now = timezone.now()
    GroupHour.objects.all().delete()
    for hours in (0, tallies.HOURS_KEPT - 1, tallies.HOURS_KEPT + 1, 10_000):
        GroupHour.objects.create(group_id=left.pk, hour=now - timedelta(hours=hours), died=1)
    assert retention.prune_hours() == 2
    assert GroupHour.objects.count() == 2
    assert retention.prune_hours() == 0


def test_operations_that_ended_long_ago_go_after_their_items(letters: Letters, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "ROWS_AT_ONCE", 20)
    old = begun("discard", what={"query": "state:open"}, reason="r")
    tick(old, seconds=1)
    tick(old)
    age(old, days=31)
    active = counted("restore", source=old.pk)
    assert [retention.prune_operations() for _ in range(4)] == [20, 10, 1, 0]
    assert BulkOperation.objects.get().pk == active.pk
    assert BulkItem.objects.filter(operation_id=active.pk).count() == 30
    control.start(active.pk)
    tick(active, seconds=11)
    tick(active, seconds=1)
    assert states_of(letters) == {"open": 30}


@pytest.mark.django_db(transaction=True)
def test_a_letter_that_comes_while_its_group_is_deleted_has_one(left: FailureGroup, make_task: MakeTask) -> None:
    """Whichever of the two is first, the other waits and then knows."""
    kind = kinds.find(left.kind)
    late = [deaths([make_task(kind)], [InvalidRequest("It does not fit.")]) for _ in range(2)]
    in_background = _background(lambda: finish(late[0]))
    with transaction.atomic():
        assert retention.prune_groups() == 1
        in_background.start()
        wait_for_a_waiting_session()
    in_background.join(10)
    again = FailureGroup.objects.get(pk=left.pk)
    assert again.first_seen > left.first_seen
    age(again, days=31)
    with transaction.atomic():
        finish(late[1])
        assert together(1, lambda _: retention.prune_groups()) == [0]
    assert FailureGroup.objects.get(pk=left.pk).letters.count() == 2  # type: ignore[attr-defined]


@pytest.mark.django_db(transaction=True)
def test_eight_who_die_and_delete_at_once_leave_no_letter_without_its_group(
    left: FailureGroup, make_task: MakeTask
) -> None:
    kind = kinds.find(left.kind)
    for _ in range(8):
        endings = deaths([make_task(kind) for _ in range(4)], [InvalidRequest("It does not fit.")] * 4)

        def act(number: int, endings: Any = endings) -> Any:
            return finish([endings[number]]) if number < 4 else retention.prune_groups()

        found = together(8, act)
        assert found[:4] == [["dead"]] * 4
        assert all(isinstance(one, int) for one in found[4:])
        assert not DeadLetter.objects.exclude(group_id__in=FailureGroup.objects.values("pk")).exists()
        DeadLetter.objects.all().delete()
        Task.objects.all().delete()
        GroupTally.objects.all().delete()
        FailureGroup.objects.update(last_seen=timezone.now() - timedelta(days=31), open_count=0)


@pytest.mark.django_db(transaction=True)
def test_of_a_restore_and_the_deletion_of_a_task_one_is_made(make_letter: MakeLetter) -> None:
    for _ in range(6):
        letter = make_letter()
        triage.discard(letter.pk, reason="r")
        letter.refresh_from_db()
        age(letter, days=31)

        def act(number: int, letter: DeadLetter = letter) -> Any:
            return triage.restore(letter.pk).state if number % 2 else retention.prune_discarded()

        found = together(6, act)
        restored = found.count("open")
        deleted = sum(one for one in found if isinstance(one, int))
        assert restored + deleted == 1, found
        others = [one for one in found[1::2] if one != "open"]
        assert all(type(one).__name__ in {"LetterIsDecided", "LetterNotFound"} for one in others)
        assert Task.objects.filter(pk=letter.task_id).count() == restored
        assert DeadLetter.objects.filter(pk=letter.pk).count() == restored


def _background(work: Callable[[], Any]) -> threading.Thread:
    return threading.Thread(target=lambda: together(1, lambda _: work()))
