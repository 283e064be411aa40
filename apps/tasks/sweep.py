"""Chores of the clock: rings the queues that have due work, resumes paused ones, and keeps its heartbeat."""

import structlog
from django.db import connection

from apps.tasks import doorbell, queues, states
from apps.tasks.lifecycle.claim import due_queues

log = structlog.get_logger(__name__)


def ring_due() -> int:
    """Ring for what is due: a lost ring costs a second. How many queues."""
    for name in queues.resume_due():
        log.info("queue_resumed", queue=name)
    due = due_queues(states.QUEUES)
    doorbell.ring(due)
    return len(due)


def record_beat(chore: str, clock: str, error: str) -> None:
    """Note that a clock has done a chore, or (error) has failed at it."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO tasks_clockbeat (chore, beat_at, clock, error) VALUES (%s, now(), %s, %s)
            ON CONFLICT (chore) DO UPDATE SET beat_at = now(), clock = excluded.clock, error = excluded.error
            """,
            [chore, clock, error],
        )
