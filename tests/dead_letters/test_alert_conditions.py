"""What each rule looks for: when its condition is true, when it is not any more, and when nobody can say."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from apps.core import clock
from apps.dead_letters import tallies, triage
from apps.dead_letters.alerts.watch import Watch
from apps.dead_letters.models import Alert, DeadLetter, FailureGroup
from apps.providers import breaker_board, circuit_breaker
from apps.providers.models import Upstream
from apps.tasks import queues, sweep
from apps.tasks.models import ClockBeat, QueueState, WorkerPresence
from tests.conftest import MakeRoute
from tests.dead_letters.conftest import MakeLetter, die
from tests.dead_letters.test_alert_watch import active, look, on, only_what_is_tested, outage
from tests.stores import NOBODY_LISTENS, PointRedisAt, point_redis_at
from tests.tasks.conftest import MakeKind, MakeTask
from tests.time import age

__all__ = ["only_what_is_tested", "point_redis_at"]
pytestmark = pytest.mark.django_db


def test_too_many_of_one_kind_within_the_window_are_told_until_they_are_old(
    make_task: MakeTask, make_kind: MakeKind
) -> None:
    on("rate")
    kind, other = make_kind(), make_kind()
    for one in (kind, other):
        outage(one, make_task, 9, 3)
    assert look() == []
    die(make_task(kind))
    [alert] = look()
    assert (alert.subject, alert.severity) == (kind.name, "critical")
    assert alert.title == f"{kind.name}: 10 or more failures within 60 min"
    age(DeadLetter.objects.filter(kind=kind.name).order_by("pk")[0], hours=2)
    assert look() == []


def test_a_rule_of_one_kind_looks_at_no_other(make_letter: MakeLetter, make_kind: MakeKind) -> None:
    wanted = make_kind()
    for event in ("new_group", "rate", "oldest_open"):
        on(event, kind=wanted.name, threshold=1, age=60)
    for kind in (wanted, make_kind()):
        age(make_letter(kind=kind), minutes=2)
    tallies.fold()
    for group in FailureGroup.objects.all():
        FailureGroup.objects.filter(pk=group.pk).update(
            first_seen=timezone.now() - timedelta(minutes=3), state_changed_at=timezone.now() - timedelta(minutes=3)
        )
        age(group, minutes=3)
    subjects = {alert.event: alert.subject for alert in look()}
    assert subjects == {
        "new_group": FailureGroup.objects.get(kind=wanted.name).pk, "rate": wanted.name, "oldest_open": wanted.name,
    }  # fmt: skip


def test_a_letter_that_is_open_for_too_long_is_told_until_it_is_decided(make_letter: MakeLetter) -> None:
    on("oldest_open")
    letter, young = make_letter(), make_letter()
    age(letter.group, hours=25)
    age(letter, hours=23)
    assert look() == []
    age(letter, hours=2)
    [alert] = look()
    assert (alert.subject, alert.title) == ("letters", "A dead letter has been open for more than 24 h")
    triage.discard(letter.pk, reason="r")
    assert look() == []
    assert DeadLetter.objects.get(pk=young.pk).state == "open"


def test_a_queue_that_is_paused_for_too_long_is_told_until_it_resumes() -> None:
    on("queue_paused")
    queues.pause("low", reason="maintenance")
    assert look() == []
    age(QueueState.objects.get(pk="low"), hours=1, minutes=1)
    [alert] = look()
    assert (alert.subject, alert.body) == ("low", "By command line: maintenance")
    queues.resume("low")
    assert look() == []


def test_our_own_kinds_alert_nobody_whatever_happens(make_task: MakeTask, make_kind: MakeKind) -> None:
    for event in ("new_group", "rate", "oldest_open", "regressed"):
        on(event, age=0)
    quiet = make_kind(announce=False)
    outage(quiet, make_task, 20, 2)
    tallies.fold()
    FailureGroup.objects.filter(message="cause a").update(state="regressed")
    assert look() == []


def test_a_chore_that_fails_is_told_by_the_others_until_it_succeeds() -> None:
    on("clock_silent", age=0)
    for chore in clock.chores():
        sweep.record_beat(chore.name, "h:1", "")
    assert look() == []
    sweep.record_beat("reap", "h:1", "ValueError: secret words")
    age(ClockBeat.objects.get(pk="expire"), minutes=1)
    assert {alert.subject: alert.title for alert in look()} == {
        "expire": "The clock's chore expire is late", "reap": "The clock's chore reap fails",
    }  # fmt: skip
    assert "secret" not in str(list(Alert.objects.values()))
    for name in ("reap", "expire"):
        sweep.record_beat(name, "h:1", "")
    assert look() == []


def test_a_clock_that_has_just_started_waits_before_it_cries() -> None:
    on("clock_silent", age=3600)
    sweep.record_beat("reap", "h:1", "ValueError")
    fresh = Watch()
    for _ in range(3):
        fresh.tick()
    assert active() == []
    fresh._since = {key: since - 3600 for key, since in fresh._since.items()}
    fresh.tick()
    assert [alert.subject for alert in active()] == ["reap"]


def test_due_work_that_nobody_takes_is_told_until_a_worker_comes(make_task: MakeTask) -> None:
    on("workers_silent", age=0)
    assert look() == []  # nobody works, and nothing is to be done
    make_task(queue="low")
    [alert] = look()
    assert alert.title == "Work is due in the queue low and no worker serves it"
    worker = present()
    assert look() == []
    age(worker, minutes=1)
    assert [alert.subject for alert in look()] == ["low"]


def test_so_is_work_beside_workers_that_do_nothing(make_task: MakeTask) -> None:
    on("workers_silent", age=0)
    present(started_at=timezone.now() - timedelta(minutes=1))
    task = make_task(queue="low")
    assert look() == []
    age(task, minutes=1)
    assert [alert.title for alert in look()] == ["Work is due in the queue low and its workers are idle"]


def present(**fields: Any) -> WorkerPresence:
    values = {"expires_at": timezone.now() + timedelta(seconds=10), **fields}
    return WorkerPresence.objects.create(id=uuid4(), lock_key=1, host="h", pid=1, queues="low", slots=5, **values)


def test_an_open_breaker_is_told_until_it_closes(make_route: MakeRoute, point_redis_at: PointRedisAt) -> None:
    on("breaker_open")
    route = make_route(provider={"breaker_reset": 3600})
    upstream = Upstream.objects.select_related("provider").get(route__public_name=route)
    assert look() == []
    for _ in range(3):
        circuit_breaker._by_client(breaker_board._upstream(upstream.provider, upstream.model), "fail")
    [alert] = look()
    assert alert.subject == f"{upstream.provider.pk}/{route}"
    assert alert.title == f"The circuit breaker of {upstream.provider.name}/{route} is open"
    breaker_board.reset(upstream.provider, [route])
    point_redis_at(NOBODY_LISTENS)
    assert look() == [alert]  # with Redis away nobody can say


def test_a_breaker_that_has_closed_ends_its_alert(make_route: MakeRoute) -> None:
    rule, route = on("breaker_open"), make_route()
    upstream = Upstream.objects.select_related("provider").get(route__public_name=route)
    Alert.objects.create(
        rule=rule, event=rule.event, severity="warning", subject=f"{upstream.provider.pk}/{route}", title="t"
    )
    assert look() == []
