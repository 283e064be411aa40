"""What rules look for: each finds the subjects for which its condition holds now, at a cost that does not grow.

Kinds that announce nothing, our own deliveries and notifications, are left out of all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.db import connection

from apps.dead_letters.models import AlertRule
from apps.dead_letters.spans import span
from apps.providers import breaker_board
from apps.tasks import kinds, liveness

LETTERS = "letters"  # the subject of a rule about letters of any kind


@dataclass(frozen=True, slots=True)
class Finding:
    """What an alert will say."""

    title: str
    body: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """found: by subject. unclear: subjects of which this look cannot tell, so they stay as they were."""

    found: dict[str, Finding]
    unclear: set[str] = field(default_factory=set)


_RATE = """
SELECT k.kind FROM (
  SELECT DISTINCT kind FROM dead_letters_failuregroup
  WHERE last_seen > now() - make_interval(secs => %(window)s) AND kind <> ALL(%(silent)s)
    AND (%(kind)s = '' OR kind = %(kind)s)) k
WHERE (SELECT count(*) FROM (
  SELECT 1 FROM dead_letters_deadletter l
  WHERE l.kind = k.kind AND l.created_at > now() - make_interval(secs => %(window)s) LIMIT %(threshold)s) n
  ) >= %(threshold)s
"""
# Whether any letter is so old is one step in an index. Whose it is: of each group the first by id, which is its oldest.
_OLD = """
SELECT to_char(o.at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') FROM dead_letters_failuregroup g CROSS JOIN LATERAL (
  SELECT l.created_at AS at FROM dead_letters_deadletter l
  WHERE l.group_id = g.fingerprint AND l.state = 'open' ORDER BY l.id LIMIT 1) o
WHERE EXISTS (SELECT 1 FROM dead_letters_deadletter
    WHERE state = 'open' AND created_at < now() - make_interval(secs => %(age)s))
  AND g.open_count > 0 AND g.kind <> ALL(%(silent)s) AND (%(kind)s = '' OR g.kind = %(kind)s)
  AND g.first_seen < now() - make_interval(secs => %(age)s) AND o.at < now() - make_interval(secs => %(age)s)
LIMIT 1
"""
_PAUSED = """
SELECT name, paused_by, reason FROM tasks_queuestate
WHERE paused_at <= now() - make_interval(secs => %(age)s) AND (resume_at IS NULL OR resume_at > now())
"""


def rate(rule: AlertRule) -> Look:
    """Kinds of which too many have died within the window."""
    words = f"{rule.threshold:,} or more failures within {span(rule.window)}"
    return Look({kind: Finding(f"{kind}: {words}") for (kind,) in _rows(_RATE, rule)})


def oldest_open(rule: AlertRule) -> Look:
    """Whether a letter has been open for too long."""
    look = Look({})
    for (since,) in _rows(_OLD, rule):
        what = f"A dead letter of {rule.kind}" if rule.kind else "A dead letter"
        title = f"{what} has been open for more than {span(rule.age)}"
        look.found[rule.kind or LETTERS] = Finding(title, f"It died on {since} UTC.")
    return look


def queue_paused(rule: AlertRule) -> Look:
    """Queues that have been paused for too long."""
    return Look(
        {
            name: Finding(
                f"The queue {name} has been paused for more than {span(rule.age)}",
                f"By {by or 'somebody'}: {reason}" if reason else "",
            )
            for name, by, reason in _rows(_PAUSED, rule)
        }
    )


def clock_silent(rule: AlertRule) -> Look:
    """Chores that fail or are late, as another clock, or another chore of this one, sees it."""
    found = {}
    for beat in liveness.chores():
        if beat.state == "failing":
            found[beat.name] = Finding(f"The clock's chore {beat.name} fails", "The page of the workers has the error.")
        elif beat.state == liveness.LATE:
            found[beat.name] = Finding(f"The clock's chore {beat.name} is late", f"Last done {beat.age:.0f} s ago.")
    return Look(found)


def workers_silent(rule: AlertRule) -> Look:
    """Queues in which work is due that no worker serves, or only workers that do nothing."""
    found = {name: Finding(f"Work is due in the queue {name} and no worker serves it") for name in liveness.neglected()}
    alive = [worker for worker in liveness.workers() if not worker.silent]
    for name in {name for worker in alive for name in worker.waiting}:
        if all(name in worker.waiting for worker in alive if name in worker.queues):
            found[name] = Finding(f"Work is due in the queue {name} and its workers are idle")
    return Look(found)


def breaker_open(rule: AlertRule) -> Look:
    """Upstreams that calls are kept away from. Half open, or with Redis away, nobody can say."""
    look = Look({})
    for one in breaker_board.load():
        subject = f"{one.provider.pk}/{one.model}"
        if one.state in {"open", "blocked"}:
            look.found[subject] = Finding(
                f"The circuit breaker of {one.provider.name}/{one.model} is {one.state}",
                f"{one.words} Routes: {', '.join(one.routes)}"[:500],
            )
        elif one.state in {"probe", "unknown"}:
            look.unclear.add(subject)
    return look


LOOKS: dict[str, Callable[[AlertRule], Look]] = {
    AlertRule.Event.RATE: rate,
    AlertRule.Event.OLDEST_OPEN: oldest_open,
    AlertRule.Event.QUEUE_PAUSED: queue_paused,
    AlertRule.Event.CLOCK_SILENT: clock_silent,
    AlertRule.Event.WORKERS_SILENT: workers_silent,
    AlertRule.Event.BREAKER_OPEN: breaker_open,
}
MUST_LAST = frozenset({AlertRule.Event.CLOCK_SILENT, AlertRule.Event.WORKERS_SILENT})
"""Of these the state alone says nothing of its age: they are watched for the rule's `age` before they count."""


def terms(rule: AlertRule) -> dict[str, Any]:
    """The rule's numbers, for SQL."""
    return {
        "rule": rule.pk, "kind": rule.kind, "silent": kinds.silent(), "threshold": rule.threshold,
        "window": rule.window, "age": rule.age,
    }  # fmt: skip


def _rows(sql: str, rule: AlertRule) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, terms(rule))
        return list(cursor.fetchall())
