"""Each day has one digest, which says what a day was like even if there is nothing to say."""

import json
from datetime import UTC, date, datetime
from uuid import uuid4

import pytest

from apps.core.errors import InvalidRequest
from apps.dead_letters import grouping, retention, tallies, triage
from apps.dead_letters.alerts import digest, messages, watch
from apps.dead_letters.models import Alert, AlertChannel, AlertDigest, AlertRule, FailureGroup
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import Task, TaskPayload
from tests.dead_letters.conftest import MakeLetter, die
from tests.races import together
from tests.tasks.conftest import ending, take
from tests.time import age

pytestmark = pytest.mark.django_db
DAY = date(2026, 3, 1)


def a_channel(**fields: bool) -> AlertChannel:
    return AlertChannel.objects.create(name=f"c-{uuid4().hex[:8]}", url="json://nowhere.test/", **fields)


def sent() -> list[int]:
    tasks = Task.objects.filter(kind="alert_notification").values_list("pk", flat=True)
    return [json.loads(TaskPayload.objects.get(task_id=pk).body)["channel_id"] for pk in tasks]


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        ("2026-03-01T07:59:59+00:00", None),
        ("2026-03-01T08:00:00+00:00", DAY),
        ("2026-03-01T23:59:59+00:00", DAY),
        ("2026-03-01T00:30:00-08:00", DAY),  # 08:30 UTC
        ("2026-03-01T08:30:00+02:00", None),
    ],
)
def test_it_is_due_from_eight_in_the_morning_utc(moment: str, day: date | None) -> None:
    assert digest.due(datetime.fromisoformat(moment)) == day


def test_it_is_sent_once_a_day_to_the_channels_that_want_it() -> None:
    wanted = a_channel(digest=True)
    a_channel()
    a_channel(digest=True, enabled=False)
    assert (digest.send(DAY), digest.send(DAY)) == (1, 0)
    assert sent() == [wanted.pk]
    assert digest.send(date(2026, 3, 2)) == 1


def test_the_clock_sends_it_only_where_it_is_due() -> None:
    a_channel(digest=True)
    before = digest.due(datetime.now(UTC))
    count = digest.tick()
    assert count in ({0} if before is None else {1})
    assert digest.tick() == 0


@pytest.mark.django_db(transaction=True)
def test_two_clocks_send_one() -> None:
    a_channel(digest=True)
    assert sorted(together(4, lambda _: digest.send(DAY)), key=str) == [0, 0, 0, 1]
    assert len(sent()) == 1


def test_with_nothing_to_say_it_says_so_in_a_line() -> None:
    digest.send(DAY)
    message = messages.of_digest(AlertDigest.objects.get())
    assert message is not None
    assert message.title == "Redrive: digest of 2026-03-01"
    assert message.body == "No dead letter is open, and nothing has failed for good since yesterday."


def test_it_tells_what_is_open_new_regressed_redriven_and_held_back(make_letter: MakeLetter) -> None:
    AlertRule.objects.exclude(event="new_group").update(enabled=False)
    good, bad, old = make_letter(), make_letter(), make_letter(error=InvalidRequest("Worn out."))
    tallies.fold()
    watch.tick()
    triage.redrive(good.pk)
    finish([ending(take(Task.objects.get(pk=good.task_id)))])
    triage.redrive(bad.pk)
    die(Task.objects.get(pk=bad.task_id), error=InvalidRequest("Again."))
    grouping.resolve(old.group_id)
    group = FailureGroup.objects.get(pk=old.group_id)
    age(group, days=3)
    FailureGroup.objects.filter(pk=group.pk).update(state="regressed")
    tallies.fold()
    Alert.objects.filter(subject=good.group_id).update(sent_at=None, severity="critical")
    lines = digest.compose().splitlines()
    assert lines[:4] == [
        "Open dead letters: 2",
        "New failure groups: 3. Regressed: 1",
        "Redriven: 1 succeeded, 1 failed again",
        "Alerts: 3, 1 of them critical, 1 held back",
    ]
    assert [line.partition(":")[0] for line in lines[4:]] == ["- 1 open", "- 1 open"]


def test_old_digests_and_alerts_that_are_over_are_deleted_and_no_others(make_letter: MakeLetter) -> None:
    digest.send(DAY)
    digest.send(datetime.now(UTC).date())
    rule = AlertRule.objects.get(event="rate")
    rows = [
        Alert.objects.create(rule=rule, event="rate", severity="warning", subject=str(number), title="t")
        for number in range(3)
    ]
    Alert.objects.exclude(pk=rows[0].pk).update(state="ended", ended_at=datetime.now(UTC))
    for row in rows[:2]:
        row.refresh_from_db()
        age(row, days=31)
    AlertDigest.objects.filter(day=DAY).update(day=date(2020, 1, 1))
    assert retention.prune_alerts() == 2
    assert set(Alert.objects.values_list("subject", flat=True)) == {"0", "2"}
    assert AlertDigest.objects.count() == 1
    assert retention.prune_alerts() == 0
