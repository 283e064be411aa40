"""The queues as operators see and steer them."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.access.models import AuditEntry
from apps.core.errors import InvalidRequest, PermissionDenied
from apps.tasks import queues, states, sweep
from apps.tasks.errors import QueueIsNotPaused, QueueNotFound
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import QueueState, Task
from tests.tasks.conftest import MakeTask, ending, take
from tests.time import age

pytestmark = pytest.mark.django_db


def named(name: str, **options: Any) -> queues.Queue:
    return next(one for one in queues.overview(**options) if one.name == name)


def test_every_queue_is_there_without_a_row() -> None:
    assert [one.name for one in queues.overview()] == list(states.QUEUES)
    empty = named("low")
    assert (empty.due, empty.later, empty.running, empty.oldest, empty.per_minute) == (0, 0, 0, None, 0.0)
    assert not empty.is_paused


def test_what_waits_runs_and_ended_is_counted_apart(make_task: MakeTask) -> None:
    old = make_task(queue="low")
    age(old, seconds=90)
    make_task(queue="low")
    make_task(queue="low", delay=600.0)
    take(make_task(queue="high"))
    for _ in range(10):
        finish([ending(take(make_task()))])
    failed = make_task()
    Task.objects.filter(pk=failed.pk).update(state="retrying", next_attempt_at=timezone.now() + timedelta(minutes=1))
    low, high, default = named("low"), named("high"), named("default")
    assert (low.due, low.later, low.running) == (2, 1, 0)
    assert low.oldest is not None
    assert 90 <= low.oldest < 120
    assert (high.due, high.running) == (0, 1)
    assert (default.due, default.later, default.retrying, default.per_minute) == (0, 1, 1, 2.0)


def test_counting_ends_at_the_cap_and_says_so(make_task: MakeTask) -> None:
    for _ in range(5):
        make_task(queue="low")
        finish([ending(take(make_task()))])
    low = named("low", cap=3)
    assert (low.due, low.shown_due, low.shown_later) == (3, "3+", "0")
    assert named("low", cap=6).shown_due == "5"
    # Of many that ended the speed is that of the last ones, not their number in five minutes.
    assert named("default", cap=3).per_minute > named("default").per_minute


def test_the_overview_is_one_query_that_walks_indexes_only(make_task: MakeTask) -> None:
    make_task()
    with CaptureQueriesContext(connection) as seen:
        queues.overview()
    assert len(seen) == 1
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {seen[0]['sql']}")
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "Seq Scan on tasks_task" not in plan
    for index in ("task_due", "task_running", "task_finished"):
        assert index in plan


def test_a_paused_queue_says_who_paused_it_why_and_until_when(django_user_model: Any) -> None:
    until = timezone.now() + timedelta(hours=1)
    boss = django_user_model.objects.create_superuser("boss")
    queues.pause("low", reason="receiver is down", resume_at=until, actor=boss)
    low = named("low")
    assert (low.is_paused, low.paused_by, low.reason, low.resume_at) == (True, "boss", "receiver is down", until)
    entry = AuditEntry.objects.get(action="pause")
    assert (entry.actor, entry.object_id, entry.reason) == ("boss", "low", "receiver is down")
    assert not named("high").is_paused


def test_nothing_is_taken_from_it_until_it_is_resumed(make_task: MakeTask) -> None:
    task = make_task(queue="low")
    queues.pause("low", reason="r")
    with pytest.raises(AssertionError, match="not claimed"):
        take(task)
    queues.resume("low", reason="mended")
    assert take(task).id == task.pk
    assert AuditEntry.objects.get(action="resume").reason == "mended"
    assert not named("low").is_paused


def test_of_a_paused_queue_the_terms_can_be_changed() -> None:
    queues.pause("low", reason="first")
    since = QueueState.objects.get(pk="low").paused_at
    queues.pause("low", reason="second")
    row = QueueState.objects.get(pk="low")
    assert (row.reason, row.paused_at) == ("second", since)
    assert AuditEntry.objects.filter(action="pause").count() == 2


def test_a_pause_ends_by_itself_and_the_audit_says_that_the_clock_did_it() -> None:
    queues.pause("low", reason="r", resume_at=timezone.now() + timedelta(minutes=5))
    queues.pause("high", reason="r", resume_at=timezone.now() + timedelta(minutes=30))
    age(QueueState.objects.get(pk="low"), minutes=6)
    sweep.ring_due()
    assert not named("low").is_paused
    assert named("high").is_paused
    entry = AuditEntry.objects.get(action="resume")
    assert (entry.actor, entry.actor_id, entry.object_id) == ("clock", None, "low")


@pytest.mark.parametrize(
    ("name", "fields", "error", "param"),
    [
        ("nonsense", {"reason": "r"}, QueueNotFound, "queue"),
        ("low", {"reason": " "}, InvalidRequest, "reason"),
        ("low", {"reason": "r" * 501}, InvalidRequest, "reason"),
        ("low", {"reason": "r", "resume_at": timezone.now() - timedelta(seconds=1)}, InvalidRequest, "resume_at"),
    ],
)
def test_a_pause_that_makes_no_sense_is_refused(name: str, fields: Any, error: type[Any], param: str) -> None:
    with pytest.raises(error) as refused:
        queues.pause(name, **fields)
    assert refused.value.param == param
    assert not QueueState.objects.exists()
    assert not AuditEntry.objects.exists()


def test_resuming_what_is_not_paused_is_told() -> None:
    with pytest.raises(QueueIsNotPaused):
        queues.resume("low")
    with pytest.raises(QueueNotFound):
        queues.resume("nonsense")
    assert not QueueState.objects.exists()


def test_it_needs_the_permission_whoever_calls() -> None:
    person = get_user_model()._default_manager.create_user("person")  # type: ignore[attr-defined]
    for verb in (queues.pause, queues.resume):
        with pytest.raises(PermissionDenied, match=r"tasks\.pause_queue"):
            verb("low", reason="r", actor=person)
    person.user_permissions.add(Permission.objects.get(codename="pause_queue"))
    person = type(person).objects.get(pk=person.pk)
    assert queues.pause("low", reason="r", actor=person).paused_by == "person"
