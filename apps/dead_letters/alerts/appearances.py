"""Failure groups that are new, and those that fail again: of thousands only what has changed is read."""

from typing import Any
from uuid import UUID

from django.db import connection

from apps.dead_letters import group_states
from apps.dead_letters.alerts.conditions import Finding, terms
from apps.dead_letters.models import AlertRule, FailureGroup

AT_ONCE = 500  # alerts that a rule opens in one look
WORDS = 500  # characters of a group's message

# A group that was never moved has the time of its making as the time of its state: one whose snooze is over has not.
_NEW = """
SELECT g.fingerprint FROM dead_letters_failuregroup g
WHERE g.state = 'for_review' AND g.state_changed_at = g.first_seen AND g.open_count > 0
  AND g.kind <> ALL(%(silent)s) AND (%(kind)s = '' OR g.kind = %(kind)s)
  AND NOT EXISTS (SELECT 1 FROM dead_letters_alert a
    WHERE a.rule_id = %(rule)s AND a.subject = g.fingerprint AND a.opened_at >= g.first_seen)
ORDER BY g.last_seen DESC LIMIT %(most)s
"""
_REGRESSED = """
SELECT g.fingerprint FROM dead_letters_failuregroup g
WHERE g.state = 'regressed' AND g.kind <> ALL(%(silent)s) AND (%(kind)s = '' OR g.kind = %(kind)s)
  AND NOT EXISTS (SELECT 1 FROM dead_letters_alert a
    WHERE a.rule_id = %(rule)s AND a.subject = g.fingerprint AND a.state <> 'ended')
ORDER BY g.last_seen DESC LIMIT %(most)s
"""
_OVER = """
SELECT a.id FROM dead_letters_alert a LEFT JOIN dead_letters_failuregroup g ON g.fingerprint = a.subject
WHERE a.rule_id = %(rule)s AND a.state <> 'ended'
  AND (g.fingerprint IS NULL OR g.state <> %(state)s OR (%(kind)s <> '' AND g.kind <> %(kind)s))
"""
# Event -> (the state it is about, what finds those that nobody was told of, how the alert begins).
_EVENTS = {
    AlertRule.Event.NEW_GROUP: (group_states.FOR_REVIEW, _NEW, "New failure group"),
    AlertRule.Event.REGRESSED: (group_states.REGRESSED, _REGRESSED, "Fails again"),
}


def change(rule: AlertRule) -> tuple[dict[str, Finding], list[UUID]]:
    """What to open, by fingerprint, and the alerts that are over."""
    state, sql, words = _EVENTS[AlertRule.Event(rule.event)]
    over = _column(_OVER, {**terms(rule), "state": state})
    fresh = _column(sql, {**terms(rule), "most": AT_ONCE})
    groups = FailureGroup.objects.filter(pk__in=fresh).order_by("-last_seen", "pk") if fresh else ()
    return {group.pk: Finding(f"{words}: {group}", group.message[:WORDS]) for group in groups}, over


def _column(sql: str, values: dict[str, Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return [row[0] for row in cursor.fetchall()]
