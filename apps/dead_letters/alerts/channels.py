"""Where alerts go: which channels a rule reaches, what a channel's last sending came to, which fail for good."""

import json
from collections.abc import Sequence

from django.db import connection
from django.db.models.functions import Now

from apps.core.crypto import UndecipherableError
from apps.dead_letters.alerts.messages import RANK
from apps.dead_letters.errors import ChannelFailed
from apps.dead_letters.models import Alert, AlertChannel, AlertRule

KIND = "alert_notification"
MOST_FAILING = 100

_FAILING = """
SELECT p.body FROM dead_letters_failuregroup g CROSS JOIN LATERAL (
  SELECT task_id FROM dead_letters_deadletter l WHERE l.group_id = g.fingerprint AND l.state = 'open'
  ORDER BY l.id DESC LIMIT 1) l
CROSS JOIN LATERAL (
  SELECT body FROM tasks_taskpayload p WHERE p.task_id = l.task_id ORDER BY p.revision DESC LIMIT 1) p
WHERE g.kind = %s LIMIT %s
"""


def of_rule(rule_id: int) -> list[AlertChannel]:
    """The enabled channels that a rule's alerts go to: those it names, or all."""
    return _reached({rule_id})[rule_id]


def addressed(alerts: Sequence[Alert]) -> dict[int, list[Alert]]:
    """What each channel gets of these, by its id."""
    reached = _reached({alert.rule_id for alert in alerts if alert.rule_id is not None})
    found: dict[int, list[Alert]] = {}
    for alert in alerts:
        for channel in reached.get(alert.rule_id or 0, ()):
            if takes(channel, alert.severity):
                found.setdefault(channel.pk, []).append(alert)
    return found


def takes(channel: AlertChannel, severity: str) -> bool:
    """Whether something of this severity is sent there."""
    return RANK[severity] >= RANK[channel.least_severity]


def url_of(channel: AlertChannel) -> str:
    """Its URL, to send to. Raises ChannelFailed where no key opens it."""
    try:
        return str(channel.url)
    except UndecipherableError:
        raise ChannelFailed(f"{channel.name}: none of REDRIVE_ENCRYPTION_KEYS opens its URL.") from None


def note(channel_id: int, *, outcome: str) -> None:
    """Keep what came of the last sending; empty: it arrived."""
    AlertChannel.objects.filter(pk=channel_id).update(tried_at=Now(), outcome=outcome[:300])


def failing() -> list[str]:
    """The names of channels that something could not be sent to for good: each has a letter that is open."""
    with connection.cursor() as cursor:
        cursor.execute(_FAILING, [KIND, MOST_FAILING])
        wanted = {found for row in cursor.fetchall() if (found := _channel_of(row[0])) is not None}
    return sorted(AlertChannel.objects.filter(pk__in=wanted).values_list("name", flat=True))


def _reached(rule_ids: set[int]) -> dict[int, list[AlertChannel]]:
    enabled = list(AlertChannel.objects.filter(enabled=True).order_by("pk"))
    named: dict[int, set[int]] = {}
    rules = AlertRule.objects.filter(pk__in=rule_ids, channels__isnull=False)
    for rule_id, channel_id in rules.values_list("pk", "channels"):
        named.setdefault(rule_id, set()).add(channel_id)
    return {
        rule_id: [channel for channel in enabled if rule_id not in named or channel.pk in named[rule_id]]
        for rule_id in rule_ids
    }


def _channel_of(payload: str) -> int | None:
    try:
        found = json.loads(payload).get("channel_id")
    except (ValueError, AttributeError):
        return None
    return found if isinstance(found, int) else None
