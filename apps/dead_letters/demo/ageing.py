"""Makes the rows of the demo's tasks as old as they shall be, in the transaction that made them.

The times of tasks, payloads, attempts, results and letters; and what is counted of letters by the hour, before anybody
has counted it.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db import connection

from apps.dead_letters.demo.works import Work

_TASKS = """
UPDATE tasks_task t SET created_at = f.created, started_at = f.first, attempt_started_at = f.last,
  finished_at = CASE WHEN t.finished_at IS NOT NULL THEN f.ended END,
  next_attempt_at = CASE WHEN t.finished_at IS NOT NULL THEN f.last ELSE t.next_attempt_at END,
  deadline = f.created + make_interval(secs => t.allowed)
FROM unnest(%s::uuid[], %s::timestamptz[], %s::timestamptz[], %s::timestamptz[], %s::timestamptz[])
  AS f(id, created, first, last, ended)
WHERE t.id = f.id
"""
_PAYLOADS = """
UPDATE tasks_taskpayload p SET created_at = t.created_at FROM tasks_task t
WHERE p.task_id = t.id AND t.id = ANY(%s)
"""
_RESULTS = """
UPDATE tasks_taskresult r SET created_at = t.finished_at FROM tasks_task t WHERE r.task_id = t.id AND t.id = ANY(%s)
"""
_ATTEMPTS = """
UPDATE tasks_taskattempt a SET finished_at = f.ended
FROM unnest(%s::uuid[], %s::int[], %s::timestamptz[]) AS f(task_id, number, ended)
WHERE a.task_id = f.task_id AND a.number = f.number
"""
# A letter is as old as the last attempt of its cycle.
_LETTERS = """
UPDATE dead_letters_deadletter l SET created_at = a.ended,
  decided_at = CASE WHEN l.decided_at IS NOT NULL THEN coalesce(a.next, l.decided_at) END
FROM (
  SELECT l.id, max(a.finished_at) FILTER (WHERE a.cycle = l.cycle) AS ended,
    min(a.started_at) FILTER (WHERE a.cycle = l.cycle + 1) AS next
  FROM dead_letters_deadletter l JOIN tasks_taskattempt a ON a.task_id = l.task_id
  WHERE l.task_id = ANY(%s) GROUP BY l.id) a
WHERE l.id = a.id
"""
# now() is the transaction's: these tallies are its own, and nobody else has seen them.
_FORGET = "DELETE FROM dead_letters_grouptally WHERE project_id = %s AND died > 0 AND at = now()"
_TALLY = """
INSERT INTO dead_letters_grouptally (group_id, project_id, api_key_id, at, died, opened)
SELECT group_id, project_id, api_key_id, max(created_at), count(*), count(*) FROM dead_letters_deadletter
WHERE task_id = ANY(%s) AND state = 'open'
GROUP BY group_id, project_id, api_key_id, date_trunc('hour', created_at)
"""
_GROUPS = """
UPDATE dead_letters_failuregroup g SET first_seen = l.first, last_seen = l.last, state_changed_at = l.first
FROM (
  SELECT group_id, min(created_at) AS first, max(created_at) AS last FROM dead_letters_deadletter
  WHERE task_id = ANY(%s) GROUP BY group_id) l
WHERE g.fingerprint = l.group_id AND g.died_count = 0 AND g.first_seen > l.first
"""


def age(project_id: UUID, works: Sequence[Work]) -> None:
    """Give all rows of these tasks the times that were thought out."""
    found = [work.id for work in works]
    tried = [work for work in works if work.tries]
    times: list[tuple[Any, ...]] = [
        (work.id, work.created, work.tries[0].started, work.tries[-1].started, work.finished) for work in tried
    ]
    times += [(work.id, work.created, None, None, None) for work in works if not work.tries]
    ends = [(work.id, number, one.finished) for work in tried for number, one in enumerate(work.tries, start=1)]
    with connection.cursor() as cursor:
        cursor.execute(_TASKS, _columns(times))
        cursor.execute(_PAYLOADS, [found])
        cursor.execute(_ATTEMPTS, _columns(ends) if ends else [[], [], []])
        cursor.execute(_RESULTS, [found])
        cursor.execute(_LETTERS, [found])
        cursor.execute(_FORGET, [project_id])
        if cursor.rowcount:
            cursor.execute(_TALLY, [found])
            cursor.execute(_GROUPS, [found])


def _columns(rows: list[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
