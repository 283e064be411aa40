"""The queues as operators see them: what waits in each, how fast it goes, who paused it; and the two verbs, audited."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection, transaction
from django.db.models.functions import Now

from apps.access import audit
from apps.access.permissions import require
from apps.access.reasons import checked
from apps.core.errors import InvalidRequest
from apps.tasks import states
from apps.tasks.enqueue import ring_after_commit
from apps.tasks.errors import QueueIsNotPaused, QueueNotFound
from apps.tasks.models import QueueState

MAY_PAUSE = "tasks.pause_queue"
CAP = 10_000  # rows counted of each kind; beyond it a number is a lower bound
WINDOW = 300.0  # seconds, of the throughput

MEANING = {
    states.HIGH: "6 of 10 free slots while it has due work",
    states.DEFAULT: "3 of 10 free slots while it has due work",
    states.LOW: "1 of 10 free slots while it has due work",
    states.WEBHOOKS: "deliveries, with slots of their own",
    states.QUARANTINE: "tasks that were there when workers died, apart from the others",
}


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue now. Counts end at `cap`; due and later together are what waits, retrying is a part of both.

    oldest: seconds since the oldest due task became due. per_minute: tasks that became final, of the last minutes.
    """

    name: str
    due: int
    later: int
    retrying: int
    running: int
    oldest: float | None
    per_minute: float
    paused_at: datetime | None
    paused_by: str
    reason: str
    resume_at: datetime | None
    cap: int

    @property
    def is_paused(self) -> bool:
        """Whether nothing is taken from it."""
        return self.paused_at is not None

    @property
    def meaning(self) -> str:
        """What the queue is for."""
        return MEANING[self.name]

    def shown(self, count: int) -> str:
        """A count for people: `10,000+` where counting ended."""
        return f"{self.cap:,}+" if count >= self.cap else f"{count:,}"

    @property
    def shown_due(self) -> str:
        """See shown."""
        return self.shown(self.due)

    @property
    def shown_later(self) -> str:
        """See shown."""
        return self.shown(self.later)

    @property
    def shown_retrying(self) -> str:
        """See shown."""
        return self.shown(self.retrying)

    @property
    def shown_running(self) -> str:
        """See shown."""
        return self.shown(self.running)


# Each count walks an index and ends at the cap, however many rows there are.
_OVERVIEW = """
WITH ended AS (
  SELECT queue, finished_at FROM tasks_task
  WHERE state IN ('succeeded', 'dead', 'cancelled') AND finished_at > now() - make_interval(secs => %(window)s)
  ORDER BY finished_at DESC LIMIT %(cap)s),
speed AS (
  SELECT queue, count(*) / greatest(extract(epoch FROM CASE
    WHEN (SELECT count(*) FROM ended) >= %(cap)s THEN now() - (SELECT min(finished_at) FROM ended)
    ELSE make_interval(secs => %(window)s) END), 1) * 60 AS per_minute
  FROM ended GROUP BY queue),
held AS (
  SELECT queue, count(*) AS n FROM (SELECT queue FROM tasks_task WHERE state = 'running' LIMIT %(cap)s) r
  GROUP BY queue)
SELECT q.name, due.n, later.n, least(due.retrying + later.retrying, %(cap)s), coalesce(held.n, 0),
  extract(epoch FROM now() - due.oldest)::float8, coalesce(speed.per_minute, 0)::float8,
  s.paused_at, coalesce(s.paused_by, ''), coalesce(s.reason, ''), s.resume_at, %(cap)s::int
FROM unnest(%(queues)s::text[]) WITH ORDINALITY AS q(name, place)
CROSS JOIN LATERAL (
  SELECT count(*) AS n, count(*) FILTER (WHERE state = 'retrying') AS retrying, min(next_attempt_at) AS oldest
  FROM (SELECT state, next_attempt_at FROM tasks_task
        WHERE queue = q.name AND state IN ('pending', 'retrying') AND next_attempt_at <= now()
        ORDER BY next_attempt_at LIMIT %(cap)s) t) AS due
CROSS JOIN LATERAL (
  SELECT count(*) AS n, count(*) FILTER (WHERE state = 'retrying') AS retrying
  FROM (SELECT state FROM tasks_task
        WHERE queue = q.name AND state IN ('pending', 'retrying') AND next_attempt_at > now()
        ORDER BY next_attempt_at LIMIT %(cap)s) t) AS later
LEFT JOIN held ON held.queue = q.name
LEFT JOIN speed ON speed.queue = q.name
LEFT JOIN tasks_queuestate s ON s.name = q.name AND s.paused_at IS NOT NULL
  AND (s.resume_at IS NULL OR s.resume_at > now())
ORDER BY q.place
"""


def overview(*, cap: int = CAP) -> list[Queue]:
    """All queues, by one query whose cost does not grow with the tables."""
    with connection.cursor() as cursor:
        cursor.execute(_OVERVIEW, {"queues": list(states.QUEUES), "cap": cap, "window": WINDOW})
        return [Queue(*row) for row in cursor.fetchall()]


@transaction.atomic
def pause(name: str, *, reason: str, resume_at: datetime | None = None, actor: Any = None) -> QueueState:
    """Let no worker take from a queue, until resume_at or for good; what runs goes on. Of a paused one: new terms.

    Raises QueueNotFound, PermissionDenied, InvalidRequest (no reason; a time that has passed).
    """
    _check(name, actor)
    reason = checked(reason, needed="Say why it is paused.")
    if resume_at is not None and resume_at <= _now():
        raise InvalidRequest("This time has passed. Name one in the future, or none.", param="resume_at")
    row, before = _locked(name)
    row.paused_at = row.paused_at or _now()
    row.resume_at, row.reason = resume_at, reason
    row.paused_by = audit.name_of(actor)
    row.save()
    audit.record("pause", row, actor=actor, reason=row.reason, before=before, after=audit.snapshot(row))
    return row


@transaction.atomic
def resume(name: str, *, reason: str = "", actor: Any = None) -> QueueState:
    """Let workers take from a paused queue again. Raises QueueNotFound, PermissionDenied, QueueIsNotPaused."""
    _check(name, actor)
    row, before = _locked(name)
    if row.paused_at is None:
        raise QueueIsNotPaused(f"The queue {name} is not paused.")
    _clear(row)
    audit.record("resume", row, actor=actor, reason=reason, before=before, after=audit.snapshot(row))
    ring_after_commit([name])
    return row


@transaction.atomic
def resume_due() -> list[str]:
    """End the pauses whose time has come, in the audit as the clock's doing; the names of their queues."""
    rows = list(QueueState.objects.select_for_update(skip_locked=True).filter(resume_at__lte=Now()).order_by("name"))
    for row in rows:
        before = audit.snapshot(row)
        _clear(row)
        audit.record(
            "resume", row, actor=audit.CLOCK, reason="its time had come", before=before, after=audit.snapshot(row)
        )
    return [row.name for row in rows]


def _check(name: str, actor: Any) -> None:
    if name not in states.QUEUES:
        raise QueueNotFound(f"There is no queue {name[:64]!r}. There are: {', '.join(states.QUEUES)}.", param="queue")
    require(actor, MAY_PAUSE)


def _locked(name: str) -> tuple[QueueState, dict[str, Any]]:
    QueueState.objects.bulk_create([QueueState(name=name)], ignore_conflicts=True)
    row = QueueState.objects.select_for_update().get(pk=name)
    return row, audit.snapshot(row)


def _clear(row: QueueState) -> None:
    row.paused_at, row.resume_at, row.reason, row.paused_by = None, None, "", ""
    row.save()


def _now() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        now: datetime = cursor.fetchone()[0]
    return now
