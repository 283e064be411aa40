"""The invariants of tasks, as questions to any database: each names the rows that break it, none in a sound one.

Operators (`manage.py verify`), the fault tests and the soak ask the same. Apps above add theirs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connection

from apps.tasks import kinds, states

SHOWN = 20
RECOVERY = timedelta(seconds=15)  # after a worker's time is over: the clock's look and its batches, with room
IDLE = timedelta(seconds=15)  # a worker looks for due work each second


@dataclass(frozen=True, slots=True)
class Invariant:
    """query: selects the id of each row that breaks it, as text; without a LIMIT. values: of its placeholders."""

    name: str
    words: str
    query: str
    values: Callable[[], dict[str, Any]] | None = None


_invariants: list[Invariant] = [
    Invariant(
        "I1",
        "every accepted task is final, waits, or is due or held by a worker whose time is not over",
        """
        SELECT id::text FROM tasks_task WHERE state = 'running' AND run_until < now() - interval '2 minutes'
        UNION ALL SELECT id::text FROM tasks_task
        WHERE state IN ('pending', 'retrying', 'waiting') AND (
          deadline < now() - interval '2 minutes'
          OR queue <> ALL(%(queues)s))
        UNION ALL SELECT id::text FROM tasks_task t WHERE NOT EXISTS (
          SELECT 1 FROM tasks_taskpayload p WHERE p.task_id = t.id)
        """,
        lambda: {"queues": list(states.QUEUES)},
    ),
    Invariant(
        "I2",
        "one task per Idempotency-Key, and it exists",
        """
        SELECT r.key FROM access_idempotencyrecord r WHERE r.task_id IS NOT NULL AND NOT EXISTS (
          SELECT 1 FROM tasks_task t WHERE t.id = r.task_id AND t.project_id = r.project_id)
        """,
    ),
    Invariant(
        "I3",
        "attempts are numbered 1..n without a gap, one outcome each",
        """
        SELECT t.id::text FROM tasks_task t
        LEFT JOIN LATERAL (
          SELECT count(*) AS n, coalesce(max(number), 0) AS last
          FROM tasks_taskattempt a WHERE a.task_id = t.id) a ON true
        WHERE a.n <> a.last OR a.last <> t.attempt - CASE WHEN t.state = 'running' THEN 1 ELSE 0 END
        """,
    ),
    Invariant(
        "I4",
        "a succeeded task has one result, of its last attempt, and no other attempt of it succeeded",
        """
        SELECT t.id::text FROM tasks_task t
        LEFT JOIN tasks_taskresult r ON r.task_id = t.id
        LEFT JOIN tasks_taskattempt a ON a.task_id = t.id AND a.number = t.attempt
        WHERE t.state = 'succeeded'
          AND (r.token IS NULL OR a.token IS DISTINCT FROM r.token OR a.outcome <> 'succeeded')
        UNION ALL
        SELECT task_id::text FROM tasks_taskattempt WHERE outcome = 'succeeded' GROUP BY task_id HAVING count(*) > 1
        """,
    ),
    Invariant(
        "I6",
        "charged failures and losses are within their bounds",
        """
        SELECT id::text FROM tasks_task WHERE worker_losses > 5
        UNION ALL
        SELECT t.id::text FROM tasks_task t WHERE t.charged_failures <> (
          SELECT count(*) FROM tasks_taskattempt a WHERE a.task_id = t.id AND a.cycle = t.cycle AND a.charged)
        """,
    ),
    Invariant(
        "I7",
        "what is final stays as it is: no attempt and no result is younger than the end",
        """
        SELECT t.id::text FROM tasks_task t WHERE t.finished_at IS NOT NULL AND (
          EXISTS (SELECT 1 FROM tasks_taskattempt a WHERE a.task_id = t.id AND a.finished_at > t.finished_at)
          OR EXISTS (SELECT 1 FROM tasks_taskresult r WHERE r.task_id = t.id AND r.created_at > t.finished_at))
        """,
    ),
    Invariant(
        "I9",
        "a parent that succeeded or was cancelled has no unfinished children, one that waits has some or is soon woken",
        # A redriven child belongs to its own cycle, not to the parent that finished before; one that is told to end
        # ends in a moment.
        """
        SELECT p.id::text FROM tasks_task p
        WHERE (p.state = 'succeeded' OR (p.state = 'cancelled' AND p.finished_at < now() - interval '1 minute'))
          AND EXISTS (
          SELECT 1 FROM tasks_task c WHERE c.parent_id = p.id AND c.item_index IS NOT NULL AND c.finished_at IS NULL
            AND c.cycle = 1 AND NOT c.cancel_requested)
        UNION ALL
        SELECT p.id::text FROM tasks_task p
        LEFT JOIN LATERAL (
          SELECT count(*) FILTER (WHERE c.finished_at IS NULL) AS unfinished, max(c.finished_at) AS last
          FROM tasks_task c WHERE c.parent_id = p.id AND c.item_index IS NOT NULL) c ON true
        WHERE p.state = 'waiting' AND c.unfinished = 0
          AND greatest(c.last, p.attempt_started_at, p.created_at) < now() - interval '1 minute'
        """,
    ),
    Invariant(
        "I10",
        "each attempt that reached an upstream is in the ledger with its cost, a lost one by an estimate",
        """
        SELECT a.task_id::text FROM tasks_taskattempt a
        JOIN tasks_task t ON t.id = a.task_id
        LEFT JOIN (
          SELECT task_id, task_attempt, sum(cost_nusd) AS cost,
            bool_or(outcome = 'interrupted' AND estimated) AS as_lost
          FROM completions_ledgerentry WHERE task_id IS NOT NULL GROUP BY task_id, task_attempt) b
          ON b.task_id = a.task_id AND b.task_attempt = a.number
        WHERE (a.upstream <> '' AND b.cost IS NULL) OR coalesce(b.cost, 0) < a.cost_nusd
          OR (t.kind = ANY(%(calling)s) AND t.api_key_id IS NOT NULL AND (
            (a.outcome = 'succeeded' AND b.cost IS NULL)
            OR (a.outcome = 'worker_lost' AND b.as_lost IS NOT TRUE)))
        """,
        lambda: {"calling": kinds.calling()},
    ),
    Invariant(
        "I11",
        "no attempt stays with a worker that is gone: all are taken from it within its time and a few seconds",
        # Counted from when workers have had the time to come back to a Postgres that was away itself. Of a worker
        # without a row only the reaper knows since when: while it takes attempts, it may not have come to these yet.
        """
        SELECT t.id::text FROM tasks_task t LEFT JOIN tasks_workerpresence p ON p.id = t.worker
        WHERE t.state = 'running' AND t.attempt_started_at < now() - %(late)s
          AND pg_postmaster_start_time() + %(start)s < now() - %(late)s
          AND (p.expires_at < now() - %(late)s
            OR (p.id IS NULL AND NOT EXISTS (
              SELECT 1 FROM tasks_taskattempt a WHERE a.outcome = 'worker_lost' AND a.finished_at > now() - %(late)s)))
        """,
        lambda: {"late": RECOVERY, "start": timedelta(seconds=2 * settings.REDRIVE.worker_ttl)},
    ),
    Invariant(
        "I12",
        "no worker that looks healthy leaves due work lying while it has free slots and claims nothing",
        # What must run alone waits by design, and what runs alone keeps its worker from claiming.
        """
        SELECT p.id::text FROM tasks_workerpresence p
        WHERE p.expires_at > now() AND p.started_at < now() - %(idle)s
          AND p.in_flight < p.slots AND (p.in_flight = 0 OR p.queues <> 'quarantine')
          AND NOT EXISTS (SELECT 1 FROM tasks_task t WHERE t.worker = p.id AND t.attempt_started_at > now() - %(idle)s)
          AND NOT EXISTS (
            SELECT 1 FROM tasks_taskattempt a WHERE a.worker = p.id AND a.started_at > now() - %(idle)s)
          AND EXISTS (
            SELECT 1 FROM tasks_task t
            WHERE t.queue = ANY(string_to_array(p.queues, ',')) AND t.state IN ('pending', 'retrying')
              AND t.next_attempt_at < now() - %(idle)s AND NOT t.cancel_requested
              AND NOT EXISTS (
                SELECT 1 FROM tasks_queuestate q WHERE q.name = t.queue AND q.paused_at IS NOT NULL
                  AND (q.resume_at IS NULL OR q.resume_at > now() - %(idle)s)))
        """,
        lambda: {"idle": IDLE},
    ),
]


def register(invariant: Invariant) -> None:
    """Add one; from AppConfig.ready."""
    _invariants.append(invariant)


def verify() -> list[tuple[Invariant, int, list[str]]]:
    """Per invariant how many rows break it, and the first of them. In one snapshot of the database."""
    found = []
    with connection.cursor() as cursor:
        for invariant in sorted(_invariants, key=lambda one: int(one.name.removeprefix("I"))):
            cursor.execute(
                f"SELECT count(*) OVER (), broken.* FROM ({invariant.query}) AS broken LIMIT {SHOWN}",  # noqa: S608
                invariant.values() if invariant.values else None,
            )
            rows = cursor.fetchall()
            found.append((invariant, int(rows[0][0]) if rows else 0, [str(row[1]) for row in rows]))
    return found


def settings_that_lose() -> list[str]:
    """Settings of Postgres with which a commit may be lost."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') "
            "AND setting = 'off'"
        )
        return [row[0] for row in cursor.fetchall()]
