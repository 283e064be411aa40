"""Watches the rules, by the clock: opens an alert where a condition becomes true, ends it where it becomes false.

What stays true is told once. However many clocks run, one looks at a time, and of a subject a rule has one alert.
"""

import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import structlog
from django.db import connection, transaction

from apps.core import ids
from apps.dead_letters.alerts import appearances, conditions, notification
from apps.dead_letters.alerts.conditions import Finding
from apps.dead_letters.models import Alert, AlertRule

log = structlog.get_logger(__name__)

EVERY = 2.0  # seconds
LOGGED = 100  # alerts of one look that have a line of their own in the log
LONGEST_TITLE = 300
FORGET = 30.0  # seconds without a look of ours after which what we saw before is of no use
EVENTS = {*conditions.LOOKS, AlertRule.Event.NEW_GROUP.value, AlertRule.Event.REGRESSED.value}

_WITHOUT_RULE = """
UPDATE dead_letters_alert a SET state = 'ended', ended_at = now() WHERE a.state <> 'ended' AND NOT EXISTS (
  SELECT 1 FROM dead_letters_alertrule r WHERE r.id = a.rule_id AND r.enabled AND r.event = a.event)
"""
_OPEN = """
INSERT INTO dead_letters_alert (id, rule_id, event, severity, subject, title, body, state, opened_at, acknowledged_by)
SELECT id, %s, %s, %s, subject, title, body, 'firing', statement_timestamp(), ''
FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[]) AS f(id, subject, title, body)
ON CONFLICT DO NOTHING
"""
_END = "UPDATE dead_letters_alert SET state = 'ended', ended_at = now() WHERE id = ANY(%s) AND state <> 'ended'"
# Those that were held back go out when the rule's time is over, if they still fire.
_SEND = """
UPDATE dead_letters_alert a SET sent_at = statement_timestamp() FROM dead_letters_alertrule r
WHERE a.rule_id = r.id AND a.state = 'firing' AND a.sent_at IS NULL AND NOT EXISTS (
  SELECT 1 FROM dead_letters_alert b WHERE b.rule_id = a.rule_id AND b.subject = a.subject
    AND b.sent_at > statement_timestamp() - make_interval(secs => r.throttle))
RETURNING a.id
"""


class Watch:
    """The eyes of one process. It remembers since when it has seen what must last before it counts."""

    def __init__(self) -> None:
        self._since: dict[tuple[int, str], float] = {}
        self._looked = time.monotonic()

    @transaction.atomic
    def tick(self) -> int:
        """Look once, and send what is new; how many alerts were opened or ended. A chore of the clock."""
        self._wake_up()
        changed = _execute(_WITHOUT_RULE)
        for rule in AlertRule.objects.filter(enabled=True, event__in=EVENTS).order_by("pk"):
            changed += self._look(rule)
        _send()
        return changed

    def _wake_up(self) -> None:
        now = time.monotonic()
        if now - self._looked > FORGET:
            self._since.clear()
        self._looked = now

    def _look(self, rule: AlertRule) -> int:
        if rule.event in conditions.LOOKS:
            fresh, over = self._compare(rule)
        else:
            fresh, over = appearances.change(rule)
        ended = _execute(_END, [over]) if over else 0
        return ended + (_open(rule, fresh) if fresh else 0)

    def _compare(self, rule: AlertRule) -> tuple[dict[str, Finding], list[UUID]]:
        look = conditions.LOOKS[rule.event](rule)
        found = self._lasting(rule, look.found) if rule.event in conditions.MUST_LAST else look.found
        active = dict(Alert.objects.filter(rule=rule).exclude(state=Alert.State.ENDED).values_list("subject", "id"))
        fresh = {subject: finding for subject, finding in found.items() if subject not in active}
        still = look.found.keys() | look.unclear
        return fresh, [alert_id for subject, alert_id in active.items() if subject not in still]

    def _lasting(self, rule: AlertRule, found: dict[str, Finding]) -> dict[str, Finding]:
        """Those that were there at each look of the last `age` seconds: a clock that starts sees much that is late."""
        for key in [key for key in self._since if key[0] == rule.pk and key[1] not in found]:
            del self._since[key]
        begun = {subject: self._since.setdefault((rule.pk, subject), self._looked) for subject in found}
        return {subject: found[subject] for subject, since in begun.items() if self._looked - since >= rule.age}


tick = Watch().tick


def _open(rule: AlertRule, fresh: dict[str, Finding]) -> int:
    subjects = sorted(fresh)
    columns: list[list[Any]] = [
        [ids.new_uuid() for _ in subjects],
        [subject[:200] for subject in subjects],
        [fresh[subject].title[:LONGEST_TITLE] for subject in subjects],
        [fresh[subject].body for subject in subjects],
    ]
    return _execute(_OPEN, [rule.pk, rule.event, rule.severity, *columns])


def _send() -> None:
    with connection.cursor() as cursor:
        cursor.execute(_SEND)
        sent = [row[0] for row in cursor.fetchall()]
    if not sent:
        return
    alerts = list(Alert.objects.filter(pk__in=sent).order_by("opened_at", "id"))
    for alert in alerts[:LOGGED]:
        log.warning("alert", alert_event=alert.event, severity=alert.severity, subject=alert.subject, title=alert.title)
    if len(alerts) > LOGGED:
        log.warning("alert", more=len(alerts) - LOGGED)
    notification.send(alerts)


def _execute(sql: str, values: Sequence[Any] | None = None) -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return int(cursor.rowcount)
