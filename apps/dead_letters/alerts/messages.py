"""The words of what is sent: alerts of one look in one message, a digest, a test."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings

from apps.dead_letters.models import Alert, AlertDigest, AlertRule
from apps.dead_letters.models.alerts import Severity

RANK = {severity: rank for rank, severity in enumerate(Severity.values)}
LINES = 20  # alerts that a message names
WORDS = 200  # characters of an alert's body in its line
# Not reversed: a worker that sends them need not load the whole admin for it.
HOME, PAGE = "/admin/", "/admin/dead_letters/alert/{}/change/"


@dataclass(frozen=True, slots=True)
class Message:
    """What a channel is sent. severity: how Apprise marks it."""

    title: str
    body: str
    severity: str = Severity.INFO.value


def worst_first(alerts: Sequence[Alert]) -> list[Alert]:
    """The order in which they are named."""
    return sorted(alerts, key=lambda alert: (-RANK[alert.severity], alert.opened_at, alert.pk))


def of_alerts(alerts: Sequence[Alert], *, total: int) -> Message | None:
    """Of the first alerts of `total`; None where they are gone."""
    if not alerts:
        return None
    alerts = worst_first(alerts)
    lines = [_line(alert) for alert in alerts[:LINES]]
    if total > len(lines):
        lines.append(f"and {total - len(lines):,} more")
    worst = alerts[0]
    title = worst.title if total == 1 else f"{total:,} alerts, the worst: {worst.title}"
    return Message(f"Redrive {worst.severity}: {title}"[:250], "\n".join(lines), worst.severity)


def of_digest(digest: AlertDigest | None) -> Message | None:
    """Of a day."""
    if digest is None:
        return None
    return Message(f"Redrive: digest of {digest.day}", "\n".join(filter(None, [digest.words, _link(HOME)])))


def of_test(words: str) -> Message:
    """A test."""
    return Message("Redrive: a test", words)


def test_of(rule: AlertRule | None, *, by: str) -> str:
    """What a test says."""
    if rule is None:
        return f"{by} has asked for this test. Alerts that are sent here arrive like this."
    what = f"{rule.severity}: {AlertRule.Event(rule.event).label.lower()}"
    return f"{by} has asked for this test of the rule {rule.name!r} ({what}). Nothing is wrong."


def _line(alert: Alert) -> str:
    ended = " (over by now)" if alert.state == Alert.State.ENDED else ""
    words = " ".join(alert.body.split())[:WORDS]
    line = f"- {alert.severity}: {alert.title}{ended}" + (f" - {words}" if words else "")
    return "\n  ".join(filter(None, [line, _link(PAGE.format(alert.pk))]))


def _link(path: str) -> str:
    url: str = settings.REDRIVE.public_url
    return f"{url}{path}" if url else ""
