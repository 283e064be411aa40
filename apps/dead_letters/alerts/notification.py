"""The kind `alert_notification`: one attempt sends one message to one channel, by Apprise, in a child process.

It announces nothing: a channel that fails for good has a letter and is named on the pages, and nobody is alerted of it.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any
from uuid import UUID

import structlog
from anyio import BrokenWorkerProcess
from django.db import transaction
from pydantic import BaseModel

from apps.access import audit
from apps.access.models import Project
from apps.access.permissions import require
from apps.access.reasons import checked
from apps.core.database import LOST_CONNECTION, in_db
from apps.core.errors import InvalidRequest
from apps.dead_letters.alerts import channels, messages, sending
from apps.dead_letters.alerts.messages import Message
from apps.dead_letters.errors import ChannelFailed, ChannelNotFound, RuleNotFound
from apps.dead_letters.models import Alert, AlertChannel, AlertDigest, AlertRule
from apps.tasks import enqueue, states
from apps.tasks.attempt import Run
from apps.tasks.enqueue import NewTask
from apps.tasks.kinds import Kind, Policy

log = structlog.get_logger(__name__)

MAY_TEST_CHANNEL = "dead_letters.change_alertchannel"
MAY_TEST_RULE = "dead_letters.change_alertrule"
PROJECT = "operations"
DELAYS = (5.0, 60.0, 300.0, 1800.0)
SECONDS = 15.0  # of one sending, the child's start included


class Notification(BaseModel):
    """What to send: alerts (the first of `total`), the digest of a day, or the words of a test."""

    channel_id: int
    alert_ids: list[UUID] = []
    total: int = 0
    digest: date | None = None
    test: str = ""


async def notify(run: Run, args: Notification) -> dict[str, Any]:
    """One attempt. Raises ChannelFailed."""
    due = await in_db(_due, args)
    if due is None:
        return {"status": "skipped"}  # the channel is gone or disabled, or what it was to be told is
    name, url, message = due
    outcome = await _send(run, url, message)
    with contextlib.suppress(*LOST_CONNECTION):  # what has arrived is not sent again for this
        await in_db(channels.note, args.channel_id, outcome=outcome)
    if outcome:
        raise ChannelFailed(f"{name}: {outcome}")
    return {"status": "sent"}


async def _send(run: Run, url: str, message: Message) -> str:
    try:
        async with asyncio.timeout(SECONDS):
            return await run.in_process(sending.send, url, message.title, message.body, message.severity)
    except TimeoutError:
        return f"It took longer than {SECONDS:.0f} s."
    except BrokenWorkerProcess:
        return "The process that sends it has died."


def _due(args: Notification) -> tuple[str, str, Message] | None:
    channel = AlertChannel.objects.filter(pk=args.channel_id).first()
    if channel is None or not (channel.enabled or args.test):
        return None
    if args.test:
        message: Message | None = messages.of_test(args.test)
    elif args.digest is not None:
        message = messages.of_digest(AlertDigest.objects.filter(day=args.digest).first())
    else:
        message = messages.of_alerts(list(Alert.objects.filter(pk__in=args.alert_ids)), total=args.total)
    return (channel.name, channels.url_of(channel), message) if message is not None else None


KIND = Kind(
    channels.KIND,
    Notification,
    notify,
    queue=states.WEBHOOKS,
    policy=Policy(delays=DELAYS),
    limit=60.0,
    deadline=None,
    announce=False,
)


def send(alerts: Sequence[Alert]) -> int:
    """Have each channel told of its alerts of these in one message, in the caller's transaction; how many messages."""
    return _enqueue(
        Notification(
            channel_id=channel_id,
            alert_ids=[alert.pk for alert in messages.worst_first(found)[: messages.LINES]],
            total=len(found),
        )
        for channel_id, found in channels.addressed(alerts).items()
    )


def send_digest(day: date) -> int:
    """Have the channels that want it told of a day, in the caller's transaction; how many messages."""
    wanted = AlertChannel.objects.filter(enabled=True, digest=True).order_by("pk").values_list("pk", flat=True)
    return _enqueue(Notification(channel_id=channel_id, digest=day) for channel_id in wanted)


@transaction.atomic
def send_test(*, channel_id: int | None = None, rule_id: int | None = None, actor: Any = None, reason: str = "") -> int:
    """Have a test sent to a channel, or to all that a rule reaches; how many messages.

    actor: a Django user who must be permitted, or None for the command line. A channel may be tested before it is
    enabled. Raises ChannelNotFound, RuleNotFound, PermissionDenied, and InvalidRequest where a rule reaches nobody.
    """
    by = actor.get_username() if actor is not None else "the command line"
    if channel_id is not None:
        require(actor, MAY_TEST_CHANNEL)
        channel = AlertChannel.objects.filter(pk=channel_id).first()
        if channel is None:
            raise ChannelNotFound()
        target: AlertChannel | AlertRule = channel
        reached, words = [channel], messages.test_of(None, by=by)
    else:
        require(actor, MAY_TEST_RULE)
        rule = AlertRule.objects.filter(pk=rule_id or 0).first()
        if rule is None:
            raise RuleNotFound()
        target = rule
        reached = [one for one in channels.of_rule(rule.pk) if channels.takes(one, rule.severity)]
        words = messages.test_of(rule, by=by)
    if not reached:
        raise InvalidRequest("No enabled channel takes alerts of this rule.")
    sent = _enqueue(Notification(channel_id=one.pk, test=words) for one in reached)
    after = {"channels": [one.name for one in reached]}
    audit.record("send_test", target, actor=actor, reason=checked(reason), after=after)
    return sent


def _enqueue(notifications: Iterable[Notification]) -> int:
    wanted = list(notifications)
    if wanted:
        project, _ = Project.objects.get_or_create(name=PROJECT)
        enqueue.accept_now([NewTask(project.pk, KIND, one.model_dump_json(), queue=states.WEBHOOKS) for one in wanted])
    return len(wanted)
