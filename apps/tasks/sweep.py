"""Chores of the clock: rings the queues that have due work, resumes paused ones, and keeps its heartbeat."""

from django.db import connection

from apps.tasks import doorbell, states
from apps.tasks.lifecycle.claim import due_queues


def ring_due() -> int:
    """Ring for what is due: a lost ring costs a second. How many queues."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE tasks_queuestate SET paused_at = NULL, resume_at = NULL, reason = '' WHERE resume_at <= now()"
        )
    queues = due_queues(states.QUEUES)
    doorbell.ring(queues)
    return len(queues)


def record_beat(chore: str, clock: str, error: str) -> None:
    """Note that a clock has done a chore."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO tasks_clockbeat (chore, beat_at, clock, error) VALUES (%s, now(), %s, %s)
            ON CONFLICT (chore) DO UPDATE SET beat_at = now(), clock = excluded.clock, error = excluded.error
            """,
            [chore, clock, error],
        )
