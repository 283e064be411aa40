"""What is to be told arrives over real HTTP, or is tried again and then a letter; secrets stay where they are."""

import asyncio
import json
import logging
from datetime import date
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.urls import reverse

from apps.access.models import AuditEntry, Project
from apps.core.database import in_db
from apps.core.errors import InvalidRequest, PermissionDenied
from apps.dead_letters import tallies, triage
from apps.dead_letters.alerts import channels, messages, notification, queries, watch
from apps.dead_letters.errors import ChannelNotFound, RuleNotFound
from apps.dead_letters.models import Alert, AlertChannel, AlertDigest, AlertRule, DeadLetter, FailureGroup
from apps.tasks import kinds
from apps.tasks.executor import Executor
from apps.tasks.models import Task, TaskAttempt
from apps.tasks.verify import verify
from tests.dead_letters.conftest import MakeLetter
from tests.dead_letters.test_triage import person
from tests.receiver import Receiver, closed_port, says
from tests.tasks.conftest import on_db
from tests.time import age
from tests.webhooks.conftest import worker

__all__ = ["worker"]

pytestmark = pytest.mark.django_db
SECRET = "hush-hush-4711"


def a_channel(url: str, **fields: Any) -> AlertChannel:
    """A channel that posts JSON to an address, with a secret in its URL."""
    apprise = url.replace("http://", f"json://somebody:{SECRET}@")
    return AlertChannel.objects.create(name=f"c-{uuid4().hex[:8]}", url=apprise, **fields)


async def ended(state: str, *, attempt: int = 1) -> Task:
    """The last notification, in a state after so many attempts."""
    async with asyncio.timeout(30):
        while True:
            task = await in_db(Task.objects.filter(kind="alert_notification").order_by("-pk").first)
            if task is not None and task.state == state and task.attempt >= attempt:
                return task
            await asyncio.sleep(0.05)


def new_group(make_letter: MakeLetter) -> DeadLetter:
    """A letter of a new group that the clock has seen."""
    letter = make_letter(error=InvalidRequest("No model of the name x."))
    tallies.fold()
    watch.tick()
    return letter


async def test_an_alert_arrives(worker: Executor, receiver: Receiver, make_letter: MakeLetter) -> None:
    url = receiver.url()
    channel = await on_db(a_channel)(url)
    letter = await on_db(new_group)(make_letter)
    task = await ended("succeeded")
    [request] = receiver.arrived(url)
    told = json.loads(request.body)
    title = f"New failure group: validation_error 400 · {letter.kind}"
    assert told["title"] == f"Redrive warning: {title}"
    assert told["message"] == f"- warning: {title} - No model of the name x."
    assert told["type"] == "warning"
    assert (task.queue, task.project_id) == ("webhooks", (await in_db(Project.objects.get, name="operations")).pk)
    await in_db(channel.refresh_from_db)
    assert (channel.outcome, channel.tried_at is not None) == ("", True)
    assert [one.name for one, count, _ in await in_db(verify) if count] == []


async def test_a_channel_that_fails_is_tried_again_and_then_a_letter_that_alerts_nobody(
    worker: Executor, receiver: Receiver, make_letter: MakeLetter, capfd: Any, caplog: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    url = receiver.url(says(503))
    channel = await on_db(a_channel)(url)
    await on_db(new_group)(make_letter)
    for attempt in range(1, 6):
        task = await ended("retrying" if attempt < 5 else "dead", attempt=attempt)
        assert len(receiver.arrived(url)) == attempt
        if attempt < 5:
            wait = (task.next_attempt_at - task.created_at).total_seconds()
            assert wait > 0.85 * notification.DELAYS[attempt - 1]
            await on_db(age)(task, seconds=2000)
            worker.wake(["webhooks"])
    letter = await in_db(DeadLetter.objects.get, task_id=task.pk)
    assert letter.code == "alert_not_sent"
    words = f"{channel.name}: The service answered 503."
    assert json.loads(task.error)["message"] == words
    for _ in range(2):
        await in_db(tallies.fold)
        await in_db(watch.tick)
    assert await in_db(Alert.objects.count) == 1
    assert await in_db(Task.objects.filter(kind="alert_notification").count) == 1
    assert (await in_db(queries.standing)).failing == [channel.name]
    await in_db(channel.refresh_from_db)
    assert channel.outcome == "The service answered 503."
    kept = await in_db(everything)
    assert words in kept
    said = capfd.readouterr()
    for place in (kept, caplog.text, said.out, said.err):
        assert SECRET not in place
        assert url.rpartition("/")[2] not in place


def everything() -> str:
    """What is kept of tasks, attempts, letters and groups, as text."""
    models = (Task, TaskAttempt, DeadLetter, FailureGroup, Alert, AuditEntry)
    with connection.cursor() as cursor:
        cursor.execute("SELECT body FROM tasks_taskpayload")
        bodies = [str(row) for row in cursor.fetchall()]
    return "\n".join([str(list(model._base_manager.values())) for model in models] + bodies)


async def test_once_the_letter_is_redriven_and_arrives_the_channel_is_well(
    worker: Executor, receiver: Receiver, make_letter: MakeLetter
) -> None:
    channel = await on_db(a_channel)(f"http://127.0.0.2:{closed_port()}/x")
    await on_db(new_group)(make_letter)
    for attempt in range(1, 5):
        await on_db(age)(await ended("retrying", attempt=attempt), seconds=2000)
        worker.wake(["webhooks"])
    task = await ended("dead")
    assert "The service could not be reached." in task.error
    await in_db(tallies.fold)
    assert await in_db(channels.failing) == [channel.name]

    def mend() -> None:
        AlertChannel.objects.filter(pk=channel.pk).update(url=receiver.url().replace("http", "json"))
        triage.redrive(DeadLetter.objects.get(task_id=task.pk).pk)

    await in_db(mend)
    await ended("succeeded")
    await in_db(tallies.fold)
    assert await in_db(channels.failing) == []


async def test_a_channel_that_is_gone_or_disabled_meanwhile_is_told_nothing(
    worker: Executor, receiver: Receiver
) -> None:
    url = receiver.url()
    channel = await on_db(a_channel)(url, enabled=False, digest=True)

    def send(channel_id: int) -> None:
        notification._enqueue([notification.Notification(channel_id=channel_id, alert_ids=[uuid4()], total=1)])

    for channel_id in (channel.pk, channel.pk + 1):
        await on_db(send)(channel_id)
        assert (await ended("succeeded")).attempt == 1
    assert receiver.arrived(url) == []


async def test_a_url_that_no_key_opens_is_a_failure_that_says_so(worker: Executor) -> None:
    def break_it() -> None:
        channel = a_channel("http://127.0.0.2:1/")
        with connection.cursor() as cursor:
            cursor.execute("UPDATE dead_letters_alertchannel SET url = 'garbage' WHERE id = %s", [channel.pk])
        notification.send_test(channel_id=channel.pk)

    await in_db(break_it)
    task = await ended("retrying")
    attempt = await in_db(TaskAttempt.objects.get, task_id=task.pk)
    assert "none of REDRIVE_ENCRYPTION_KEYS opens its URL" in attempt.error_message


async def test_a_test_arrives_even_before_the_channel_is_enabled(worker: Executor, receiver: Receiver) -> None:
    url = receiver.url()
    channel = await on_db(a_channel)(url, enabled=False)
    await on_db(notification.send_test)(channel_id=channel.pk, reason="new")
    await ended("succeeded")
    [request] = receiver.arrived(url)
    assert "the command line has asked for this test" in json.loads(request.body)["message"]
    [entry] = await in_db(lambda: list(AuditEntry.objects.filter(action="send_test")))
    assert (entry.object_id, entry.reason, entry.after) == (str(channel.pk), "new", {"channels": [channel.name]})
    assert SECRET not in await in_db(everything)


def test_a_test_of_a_rule_goes_where_its_alerts_go(django_user_model: Any) -> None:
    rule = AlertRule.objects.get(event="new_group")
    with pytest.raises(InvalidRequest, match="No enabled channel"):
        notification.send_test(rule_id=rule.pk)
    a_channel("http://a.test/", least_severity="critical")
    chosen, _ = a_channel("http://a.test/"), a_channel("http://a.test/")
    assert notification.send_test(rule_id=rule.pk) == 2
    rule.channels.set([chosen])
    actor = person(django_user_model, "change_alertrule")
    assert notification.send_test(rule_id=rule.pk, actor=actor) == 1
    assert AuditEntry.objects.filter(action="send_test", actor=actor.username).count() == 1


def test_who_may_not_change_a_channel_or_a_rule_may_not_test_it(django_user_model: Any) -> None:
    channel, actor = a_channel("http://a.test/"), person(django_user_model, "view_alertchannel", "view_alertrule")
    with pytest.raises(PermissionDenied):
        notification.send_test(channel_id=channel.pk, actor=actor)
    with pytest.raises(PermissionDenied):
        notification.send_test(rule_id=AlertRule.objects.all()[0].pk, actor=actor)
    with pytest.raises(ChannelNotFound):
        notification.send_test(channel_id=0)
    with pytest.raises(RuleNotFound):
        notification.send_test(rule_id=0)
    assert not Task.objects.exists()


def test_a_long_list_is_cut_and_counted(make_letter: MakeLetter) -> None:
    rule = AlertRule.objects.get(event="new_group")
    alerts = [
        Alert.objects.create(
            rule=rule, event="new_group", severity="critical" if number == 30 else "warning", subject=str(number),
            title=f"t{number}",
        )
        for number in range(40)
    ]  # fmt: skip
    message = messages.of_alerts(alerts, total=40)
    assert message is not None
    lines = message.body.splitlines()
    assert (len(lines), lines[0], lines[-1]) == (21, "- critical: t30", "and 20 more")
    assert (message.title, message.severity) == ("Redrive critical: 40 alerts, the worst: t30", "critical")
    Alert.objects.update(state="ended", ended_at="2026-01-01T00:00Z")
    ended = messages.of_alerts(list(Alert.objects.filter(subject="1")), total=1)
    assert ended is not None
    assert ended.body == "- warning: t1 (over by now)"
    assert messages.of_alerts([], total=3) is None


def test_a_message_links_to_the_pages_of_its_alerts_where_the_admin_s_address_is_known(settings: Any) -> None:
    rule = AlertRule.objects.get(event="new_group")
    alert = Alert.objects.create(rule=rule, event="new_group", severity="warning", subject="g", title="t", body="b")
    settings.REDRIVE = settings.REDRIVE.model_copy(update={"public_url": "https://redrive.test"})
    message = messages.of_alerts([alert], total=1)
    page = reverse("admin:dead_letters_alert_change", args=[alert.pk])
    assert message is not None
    assert message.body == f"- warning: t - b\n  https://redrive.test{page}"
    day = messages.of_digest(AlertDigest(day=date(2026, 3, 1), words="All is well."))
    assert day is not None
    assert day.body == f"All is well.\nhttps://redrive.test{reverse('admin:index')}"


def test_clients_cannot_ask_for_notifications() -> None:
    assert "alert_notification" in kinds.silent()
    with pytest.raises(InvalidRequest):
        kinds.public("alert_notification")
