"""The invariants of tasks, as questions to any database: each names the rows that break it, none in a sound one.

Operators (`manage.py verify`), the fault tests and the soak ask the same. Apps above add theirs.
"""

from dataclasses import dataclass

from django.db import connection

SHOWN = 20


@dataclass(frozen=True, slots=True)
class Invariant:
    """query: selects the id of each row that breaks it, as text; without a LIMIT."""

    name: str
    words: str
    query: str


_invariants: list[Invariant] = [
    Invariant(
        "I1",
        "every accepted task is final, waits, or is due or held by a worker whose time is not over",
        """
        SELECT id::text FROM tasks_task WHERE state = 'running' AND run_until < now() - interval '2 minutes'
        UNION ALL SELECT id::text FROM tasks_task
        WHERE state IN ('pending', 'retrying', 'waiting') AND (
          deadline < now() - interval '2 minutes'
          OR queue NOT IN ('high', 'default', 'low', 'webhooks', 'quarantine'))
        UNION ALL SELECT id::text FROM tasks_task t WHERE NOT EXISTS (
          SELECT 1 FROM tasks_taskpayload p WHERE p.task_id = t.id)
        """,
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
]


def register(invariant: Invariant) -> None:
    """Add one; from AppConfig.ready."""
    _invariants.append(invariant)


def verify() -> list[tuple[Invariant, int, list[str]]]:
    """Per invariant how many rows break it, and the first of them. In one snapshot of the database."""
    found = []
    with connection.cursor() as cursor:
        for invariant in sorted(_invariants, key=lambda one: one.name):
            cursor.execute(
                f"SELECT count(*) OVER (), broken.* FROM ({invariant.query}) AS broken LIMIT {SHOWN}"  # noqa: S608
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
