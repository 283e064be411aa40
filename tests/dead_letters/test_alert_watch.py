"""Alerts tell of changes of state, once, in one message a channel, and never of our own deliveries."""

import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.core import clock
from apps.core.errors import InvalidRequest, Timeout
from apps.dead_letters import grouping, tallies, triage
from apps.dead_letters.alerts import acknowledging, watch
from apps.dead_letters.alerts.watch import Watch
from apps.dead_letters.models import Alert, AlertChannel, AlertRule, FailureGroup
from apps.tasks import queues
from apps.tasks.kinds import Kind
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import Task, TaskPayload
from tests.dead_letters.conftest import MakeLetter, deaths, die
from tests.races import together
from tests.stores import point_redis_at
from tests.tasks.conftest import MakeKind, MakeTask
from tests.time import age

__all__ = ["point_redis_at"]
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def only_what_is_tested() -> None:
    """No rule but those that a test switches on."""
    AlertRule.objects.update(enabled=False)


def on(event: str, **fields: Any) -> AlertRule:
    """The default rule of an event, switched on."""
    AlertRule.objects.filter(event=event).update(enabled=True, **fields)
    return AlertRule.objects.get(event=event)


def look() -> list[Alert]:
    """Fold what has happened and look once; the alerts that are active then."""
    tallies.fold()
    watch.tick()
    return active()


def active() -> list[Alert]:
    return list(Alert.objects.exclude(state="ended").order_by("opened_at", "id"))


def a_channel(**fields: Any) -> AlertChannel:
    return AlertChannel.objects.create(name=f"c-{uuid4().hex[:8]}", url="json://nowhere.test/", **fields)


def messages() -> list[dict[str, Any]]:
    """What notification tasks are told to send, oldest first."""
    tasks = Task.objects.filter(kind="alert_notification").order_by("pk").values_list("pk", flat=True)
    return [json.loads(TaskPayload.objects.get(task_id=pk).body) for pk in tasks]


def outage(kind: Kind, make_task: MakeTask, count: int, causes: int) -> None:
    """So many deaths of so many causes."""
    errors = [InvalidRequest(f"cause {'abcdef'[number % causes]}") for number in range(count)]
    finish(deaths([make_task(kind) for _ in range(count)], errors))


def test_two_thousand_deaths_are_one_alert_a_group_and_one_of_the_kind_in_one_message(
    make_task: MakeTask, make_kind: MakeKind
) -> None:
    for event in ("new_group", "rate"):
        on(event)
    channel, kind = a_channel(), make_kind()
    for _ in range(2):
        outage(kind, make_task, 1000, 3)
        alerts = look()
    assert sorted((alert.event, alert.severity) for alert in alerts) == [
        ("new_group", "warning"), ("new_group", "warning"), ("new_group", "warning"), ("rate", "critical"),
    ]  # fmt: skip
    assert Alert.objects.count() == 4
    [told] = messages()
    assert (told["channel_id"], told["total"]) == (channel.pk, 4)
    assert told["alert_ids"][0] == str(Alert.objects.get(event="rate").pk)  # the worst first
    assert all(alert.sent_at for alert in alerts)


def test_what_stays_true_is_told_once_and_ends_when_somebody_has_looked(make_letter: MakeLetter) -> None:
    on("new_group")
    letter = make_letter(error=Timeout(), upstream="openai/gpt-4o")
    [alert] = look()
    assert (alert.subject, alert.state) == (letter.group_id, "firing")
    assert alert.title == f"New failure group: timeout 504 · openai/gpt-4o · {letter.kind}"
    assert look() == [alert]
    grouping.reopen(letter.group_id)
    assert look() == []
    alert.refresh_from_db()
    assert alert.state == "ended"
    assert alert.ended_at is not None


def test_a_snooze_that_ends_does_not_make_a_group_new(make_letter: MakeLetter) -> None:
    on("new_group")
    letter = make_letter()
    assert len(look()) == 1
    grouping.snooze(letter.group_id, until=timezone.now() + timedelta(hours=1))
    assert look() == []
    FailureGroup.objects.update(snoozed_until=timezone.now() - timedelta(hours=1))
    assert look() == []
    assert FailureGroup.objects.get().state == "for_review"
    assert Alert.objects.count() == 1


def test_a_group_that_was_snoozed_before_anybody_looked_is_not_new_either(make_letter: MakeLetter) -> None:
    letter = make_letter()
    grouping.snooze(letter.group_id, until=timezone.now() + timedelta(hours=1))
    FailureGroup.objects.update(snoozed_until=timezone.now() - timedelta(hours=1))
    on("new_group")
    assert look() == []
    assert FailureGroup.objects.get().state == "for_review"


def test_a_group_that_retention_deleted_is_new_when_it_fails_again(make_task: MakeTask, make_kind: MakeKind) -> None:
    on("new_group", throttle=0)
    kind = make_kind()
    die(make_task(kind))
    [first] = look()
    age(first, days=1)
    FailureGroup.objects.all().delete()
    assert look() == []
    die(make_task(kind))
    [second] = look()
    assert second.subject == first.subject


def test_a_group_without_open_letters_is_not_announced(make_letter: MakeLetter) -> None:
    on("new_group")
    letter = make_letter()
    triage.discard(letter.pk, reason="r")
    assert look() == []


def test_a_regressed_group_is_told_of_until_somebody_takes_it_up(make_task: MakeTask, make_kind: MakeKind) -> None:
    on("regressed")
    kind = make_kind()
    die(make_task(kind))
    assert look() == []
    group = FailureGroup.objects.get()
    grouping.resolve(group.pk)
    age(group, minutes=1)
    die(make_task(kind))
    [alert] = look()
    assert (alert.event, alert.subject) == ("regressed", group.pk)
    assert alert.title.startswith("Fails again: ")
    grouping.reopen(group.pk)
    assert look() == []


def test_the_same_thing_is_sent_once_within_the_throttle_and_then_if_it_still_is_so(make_letter: MakeLetter) -> None:
    on("queue_paused", age=0)
    a_channel()
    for _ in range(3):
        queues.pause("low", reason="r")
        [alert] = look()
        queues.resume("low")
        assert look() == []
    assert Alert.objects.count() == 3
    assert Alert.objects.filter(sent_at__isnull=True).count() == 2
    assert len(messages()) == 1
    queues.pause("low", reason="r")
    assert look()[0].sent_at is None
    age(Alert.objects.get(sent_at__isnull=False), hours=2)
    [alert] = look()
    assert alert.sent_at is not None
    assert len(messages()) == 2


def test_what_is_acknowledged_before_it_was_sent_is_not_sent(make_letter: MakeLetter) -> None:
    rule = on("queue_paused", age=0)
    queues.pause("low", reason="r")
    [alert] = look()
    queues.resume("low")
    look()
    queues.pause("low", reason="r")
    [again] = look()
    acknowledging.acknowledge(again.pk)
    age(alert, seconds=2 * rule.throttle)
    assert look()[0].sent_at is None


def test_each_channel_gets_what_is_for_it(make_task: MakeTask, make_kind: MakeKind) -> None:
    chosen, all_of_it, worst, off = a_channel(), a_channel(), a_channel(least_severity="critical"), a_channel()
    AlertChannel.objects.filter(pk=off.pk).update(enabled=False)
    on("new_group")
    on("rate").channels.set([chosen, off])
    outage(make_kind(), make_task, 10, 2)
    look()
    assert {one["channel_id"]: one["total"] for one in messages()} == {chosen.pk: 3, all_of_it.pk: 2}
    on("rate").channels.clear()
    outage(make_kind(), make_task, 10, 2)
    look()
    assert {one["channel_id"]: one["total"] for one in messages()[2:]} == {
        chosen.pk: 3, all_of_it.pk: 3, worst.pk: 1,
    }  # fmt: skip


def test_alerts_of_a_rule_that_is_off_gone_or_of_something_else_end(make_letter: MakeLetter) -> None:
    rule = on("new_group")
    make_letter()
    assert len(look()) == 1
    AlertRule.objects.filter(pk=rule.pk).update(enabled=False)
    assert look() == []
    AlertRule.objects.filter(pk=rule.pk).update(enabled=True)
    assert look() == []  # it was told of
    make_letter()
    assert len(look()) == 1
    rule.delete()
    assert look() == []


def test_many_new_groups_cost_as_many_queries_as_one(make_letter: MakeLetter) -> None:
    on("new_group")
    a_channel()
    counts = []
    for size in (1, 20):
        for _ in range(size):
            make_letter()
        tallies.fold()
        with CaptureQueriesContext(connection) as seen:
            watch.tick()
        counts.append(len(seen))
    assert Alert.objects.count() == 21
    assert counts[1] <= counts[0]


@pytest.mark.django_db(transaction=True)
def test_two_clocks_at_once_tell_of_each_thing_once(make_task: MakeTask, make_kind: MakeKind) -> None:
    on("new_group")
    a_channel()
    outage(make_kind(), make_task, 6, 3)
    tallies.fold()
    [chore] = [chore for chore in clock.chores() if chore.name == "alerts"]
    together(2, lambda number: clock.do(chore, f"h:{number}"))
    assert not [one for one in together(4, lambda _: Watch().tick()) if isinstance(one, Exception)]
    assert Alert.objects.count() == 3
    assert sum(one["total"] for one in messages()) == 3
