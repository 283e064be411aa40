"""Who works: the workers and the clock as operators and `/readyz` see them, by the database's clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from apps.core import clock
from apps.core.database import in_db
from apps.core.health import Unwell
from apps.tasks import states

SILENT = 10.0  # seconds without a beat after which the clock counts as silent
OVERDUE = 60.0  # seconds that due work may wait where nobody serves its queue
IDLE = 5.0  # seconds that due work may wait beside a worker with nothing to do
LATE, MISSED = "late", 3  # a chore is late after so many times its pace


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that has given a sign of life. age: seconds since the last. waiting: of its queues, those with work
    that has been due for a while although it has nothing to do."""

    id: UUID
    host: str
    pid: int
    queues: Sequence[str]
    slots: int
    in_flight: int
    started_at: datetime
    beat_at: datetime
    age: float
    silent: bool
    waiting: Sequence[str]

    @property
    def state(self) -> str:
        """working, idle, silent, or stuck: alive but idle while work waits."""
        if self.silent:
            return "silent"
        return "working" if self.in_flight else "stuck" if self.waiting else "idle"


@dataclass(frozen=True, slots=True)
class ChoreBeat:
    """A chore of the clock. age: seconds since it was last done; None: never. every: seconds, as registered."""

    name: str
    every: float
    age: float | None
    clock: str
    error: str

    @property
    def state(self) -> str:
        """ok, failing, late or never."""
        if self.age is None:
            return "never"
        if self.error:
            return "failing"
        return LATE if self.age > max(SILENT, MISSED * self.every) else "ok"


_WORKERS = """
SELECT p.id, p.host, p.pid, string_to_array(p.queues, ','), p.slots, p.in_flight, p.started_at, p.beat_at,
  extract(epoch FROM now() - p.beat_at)::float8, p.expires_at < now(), ARRAY(
    SELECT q FROM unnest(string_to_array(p.queues, ',')) AS q
    WHERE p.in_flight = 0 AND p.started_at < now() - make_interval(secs => %(idle)s) AND EXISTS (
      SELECT 1 FROM tasks_task t WHERE t.queue = q AND t.state IN ('pending', 'retrying')
        AND t.next_attempt_at < now() - make_interval(secs => %(idle)s) AND NOT t.cancel_requested)
      AND NOT EXISTS (SELECT 1 FROM tasks_queuestate s WHERE s.name = q AND s.paused_at IS NOT NULL))
FROM tasks_workerpresence p ORDER BY p.host, p.pid LIMIT 500
"""
_SERVED = """
SELECT q.name,
  (SELECT count(*) FROM tasks_workerpresence p
   WHERE p.expires_at > now() AND q.name = ANY(string_to_array(p.queues, ','))),
  (SELECT extract(epoch FROM now() - t.next_attempt_at)::float8 FROM tasks_task t
   WHERE t.queue = q.name AND t.state IN ('pending', 'retrying') AND t.next_attempt_at <= now()
     AND NOT EXISTS (SELECT 1 FROM tasks_queuestate s WHERE s.name = q.name AND s.paused_at IS NOT NULL)
   ORDER BY t.next_attempt_at LIMIT 1)
FROM unnest(%s::text[]) AS q(name)
"""


def workers() -> list[Worker]:
    """All workers that have not been forgotten, by host and process."""
    with connection.cursor() as cursor:
        cursor.execute(_WORKERS, {"idle": IDLE})
        return [Worker(*row) for row in cursor.fetchall()]


def unserved(found: Sequence[Worker]) -> list[str]:
    """The queues that none of these workers serves."""
    served = {name for worker in found if not worker.silent for name in worker.queues}
    return [name for name in states.QUEUES if name not in served]


def neglected() -> list[str]:
    """The queues in which work is due and that no worker serves."""
    return [name for name, count, age in _served() if not count and age is not None]


def chores() -> list[ChoreBeat]:
    """The registered chores with their last beats."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT chore, extract(epoch FROM now() - beat_at)::float8, clock, error FROM tasks_clockbeat")
        beats = {row[0]: row[1:] for row in cursor.fetchall()}
    return [ChoreBeat(chore.name, chore.every, *beats.get(chore.name, (None, "", ""))) for chore in clock.chores()]


def silent_for(beats: Sequence[ChoreBeat]) -> float | None:
    """Seconds since any clock did anything; None: never."""
    return min((beat.age for beat in beats if beat.age is not None), default=None)


def is_silent(beats: Sequence[ChoreBeat]) -> bool:
    """Whether no clock seems to run."""
    age = silent_for(beats)
    return age is None or age > SILENT


async def check_clock() -> dict[str, Any]:
    """A clock has ticked within 10 s and its chores succeed. Raises Unwell."""
    beats = await in_db(chores)
    age = silent_for(beats)
    facts: dict[str, Any] = {"age": None if age is None else round(age, 1)}
    if is_silent(beats):
        raise Unwell("No clock ticks: run `manage.py clock`.", **facts)
    failing = [beat.name for beat in beats if beat.state in {"failing", LATE}]
    if failing:
        raise Unwell("Chores of the clock fail or are late: see its log.", **facts, chores=failing)
    return facts


async def check_workers() -> dict[str, Any]:
    """Each queue has a worker. Raises Unwell; `overdue` names where work waits meanwhile, in seconds."""
    served = await in_db(_served)
    facts: dict[str, Any] = {"workers": {name: count for name, count, _ in served}}
    lacking = [name for name, count, _ in served if not count]
    if not lacking:
        return facts
    overdue = {name: round(age, 1) for name, count, age in served if not count and age and age > OVERDUE}
    words = "Due work waits in queues that no worker serves" if overdue else "Some queues have no worker"
    raise Unwell(f"{words}: run `manage.py worker`.", **facts, unserved=lacking, overdue=overdue)


def _served() -> list[tuple[str, int, float | None]]:
    with connection.cursor() as cursor:
        cursor.execute(_SERVED, [list(states.QUEUES)])
        return [(name, count, age) for name, count, age in cursor.fetchall()]
