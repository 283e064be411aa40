"""The daily digest: what has happened to dead letters in a day, once for each day (UTC), whoever's clock it is."""

from datetime import date, datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from apps.dead_letters.alerts import notification
from apps.dead_letters.models import AlertDigest, FailureGroup

EVERY = 60.0  # seconds
HOUR = 8  # of the day, from which it is sent
TOP = 5
CAP = 100_000  # letters counted; beyond it a number is a lower bound

_NUMBERS = """
SELECT (SELECT coalesce(sum(open_count), 0) FROM dead_letters_failuregroup),
  (SELECT count(*) FROM dead_letters_failuregroup WHERE first_seen > now() - interval '1 day'),
  (SELECT count(*) FROM dead_letters_failuregroup WHERE state = 'regressed'),
  count(*) FILTER (WHERE outcome = 'succeeded'), count(*) FILTER (WHERE outcome = 'dead'), count(*)
FROM (
  SELECT outcome FROM dead_letters_deadletter
  WHERE state <> 'open' AND decided_at > now() - interval '1 day' LIMIT %s) l
"""
_ALERTS = """
SELECT count(*), count(*) FILTER (WHERE severity = 'critical'), count(*) FILTER (WHERE sent_at IS NULL)
FROM dead_letters_alert WHERE opened_at > now() - interval '1 day'
"""


def tick() -> int:
    """Send what is due; how many messages. A chore of the clock."""
    day = due(timezone.now())
    return send(day) if day is not None else 0


def due(moment: datetime) -> date | None:
    """The day whose digest may be sent at this moment."""
    moment = moment.astimezone(timezone.get_fixed_timezone(timedelta()))
    return moment.date() if moment.hour >= HOUR else None


@transaction.atomic
def send(day: date) -> int:
    """Write and send the digest of a day unless that was done; how many messages."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO dead_letters_alertdigest (day, words, created_at) VALUES (%s, '', now()) "
            "ON CONFLICT DO NOTHING",
            [day],
        )
        if not cursor.rowcount:
            return 0
    AlertDigest.objects.filter(day=day).update(words=compose())
    return notification.send_digest(day)


def compose() -> str:
    """What it says now."""
    opened, new, regressed, succeeded, failed, seen = _row(_NUMBERS, [CAP])
    alerts, critical, held_back = _row(_ALERTS, [])
    if not any((opened, new, regressed, succeeded, failed, alerts)):
        return "No dead letter is open, and nothing has failed for good since yesterday."
    more = "+" if seen >= CAP else ""
    lines = [
        f"Open dead letters: {opened:,}",
        f"New failure groups: {new:,}. Regressed: {regressed:,}",
        f"Redriven: {succeeded:,}{more} succeeded, {failed:,}{more} failed again",
        f"Alerts: {alerts:,}, {critical:,} of them critical, {held_back:,} held back",
    ]
    top = FailureGroup.objects.filter(open_count__gt=0).order_by("-open_count", "fingerprint")[:TOP]
    lines += [f"- {group.open_count:,} open: {group}" for group in top]
    return "\n".join(lines)


def _row(sql: str, values: list[Any]) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        row: tuple[Any, ...] = cursor.fetchone()
    return row
