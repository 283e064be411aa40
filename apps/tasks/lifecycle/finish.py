"""Moves running -> succeeded, retrying, dead, cancelled: writes the ends of many attempts in one transaction.

Whoever lost its lease meanwhile loses here: its token does not match, nothing of it is kept but its cost.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import structlog
from django.db import connection, transaction

from apps.completions import ledger
from apps.core import failpoints, json_codec
from apps.core.database import copy_rows
from apps.tasks import states
from apps.tasks.lifecycle.ending import Ending
from apps.tasks.models import TaskAttempt, TaskResult
from apps.tasks.signals import Death, Finished, tasks_died, tasks_finished

log = structlog.get_logger(__name__)

_MOVE = """
WITH f AS (
  SELECT * FROM unnest(%s::uuid[], %s::bigint[], %s::text[], %s::float8[], %s::int[], %s::bool[], %s::bool[],
                       %s::text[], %s::text[], %s::text[], %s::text[], %s::int[])
    AS f(id, token, state, delay, charged, parked, frozen, error, fingerprint, progress, queue, lost)),
 held AS (
  -- Locked before it is looked at: a cancel that commits meanwhile is seen.
  SELECT t.id, t.cancel_requested FROM tasks_task t JOIN f ON f.id = t.id AND f.token = t.token
  WHERE t.state = 'running' ORDER BY t.id FOR UPDATE OF t),
 m AS MATERIALIZED (
  -- Decided once a row, not once a column.
  SELECT f.*, CASE
    WHEN held.cancel_requested AND f.state <> 'succeeded' THEN 'cancelled'
    WHEN f.state = 'retrying' AND f.fingerprint <> '' AND NOT f.parked AND NOT f.frozen
      AND EXISTS (SELECT 1 FROM tasks_retryhold h WHERE h.fingerprint = f.fingerprint) THEN 'dead'
    ELSE f.state END AS becomes
  FROM f JOIN held ON held.id = f.id)
UPDATE tasks_task t SET
  state = m.becomes, token = NULL, worker = NULL, run_until = NULL,
  next_attempt_at = CASE WHEN m.becomes = 'retrying' THEN now() + make_interval(secs => m.delay)
                    ELSE t.next_attempt_at END,
  charged_failures = t.charged_failures + m.charged,
  worker_losses = t.worker_losses + m.lost,
  queue = coalesce(nullif(m.queue, ''), t.queue),
  parked_since = CASE WHEN m.parked THEN coalesce(t.parked_since, now())
                 WHEN m.frozen THEN t.parked_since + make_interval(secs => m.delay) END,
  finished_at = CASE WHEN m.becomes IN ('succeeded', 'dead', 'cancelled') THEN now() END,
  error = CASE WHEN m.becomes = 'dead' THEN m.error ELSE '' END,
  progress = coalesce(nullif(m.progress, ''), t.progress)
FROM m WHERE t.id = m.id
RETURNING t.id, t.state, t.project_id, t.api_key_id, t.kind, t.queue, t.cycle, t.callback_url, t.parent_id,
  now()
"""
_ATTEMPT = (
    "task_id", "number", "cycle", "token", "worker", "started_at", "finished_at", "outcome", "charged", "error_code",
    "error_status", "error_message", "fingerprint", "traceback", "upstream", "input_tokens", "output_tokens",
    "cost_nusd",
)  # fmt: skip
_RESULT = ("task_id", "token", "body", "created_at")


def finish(endings: Sequence[Ending]) -> list[str | None]:
    """Write them; for each the state that its task is in now, None where another had the lease."""
    ordered = sorted(endings, key=lambda ending: ending.task_id)
    with transaction.atomic():
        moved = _move(ordered)
        won = [ending for ending in ordered if ending.task_id in moved]
        _insert_attempts(won, moved)
        _insert_results(won, moved)
        ledger.write([entry for ending in won for entry in ending.entries])
        # Of one that lost its lease, or whose end was committed just before the connection broke: then it is booked.
        # An estimate of the reaper's counts only if nobody else told the end.
        stale = [ending for ending in ordered if ending.task_id not in moved and not ending.decision.lost]
        ledger.write_once([entry for ending in stale for entry in ending.entries])
        tell([moved[ending.task_id].finished for ending in won if moved[ending.task_id].is_final], _deaths(won, moved))
        failpoints.hit("finish.before_commit")
    failpoints.hit("finish.after_commit")
    for ending in ordered:
        if ending.task_id not in moved:
            log.warning("stale_result", task=ending.task_id.hex, attempt=ending.number)
    return [moved[ending.task_id].state if ending.task_id in moved else None for ending in endings]


def tell(finished: list[Finished], deaths: list[Death]) -> None:
    """Send the news of a batch, in its transaction."""
    if deaths:  # first, so that who is told of the end finds the letter
        tasks_died.send(sender=None, deaths=deaths)
    if finished:
        tasks_finished.send(sender=None, tasks=finished)


class _Moved:
    """A task's row after its move."""

    __slots__ = ("api_key_id", "at", "cycle", "finished", "queue", "state")

    def __init__(self, row: tuple[Any, ...]) -> None:
        (
            task_id, self.state, project_id, self.api_key_id, kind, self.queue, self.cycle, callback_url, parent_id,
            self.at,
        ) = row  # fmt: skip
        self.finished = Finished(task_id, project_id, kind, self.state, callback_url, parent_id, self.cycle)

    @property
    def is_final(self) -> bool:
        return self.state in states.FINAL


def _move(endings: Sequence[Ending]) -> dict[UUID, _Moved]:
    decisions = [ending.decision for ending in endings]
    with connection.cursor() as cursor:
        cursor.execute(
            _MOVE,
            [
                [ending.task_id for ending in endings],
                [ending.token for ending in endings],
                [decision.state for decision in decisions],
                [decision.delay for decision in decisions],
                [int(decision.charged) for decision in decisions],
                [decision.parked for decision in decisions],
                [decision.frozen for decision in decisions],
                [error_of(ending) for ending in endings],
                [ending.failure.fingerprint if ending.failure else "" for ending in endings],
                [ending.progress for ending in endings],
                [decision.queue for decision in decisions],
                [int(decision.lost) for decision in decisions],
            ],
        )
        return {row[0]: _Moved(row) for row in cursor.fetchall()}


def error_of(ending: Ending) -> str:
    """JSON of the error that the task shows if it dies of this attempt."""
    return json_codec.ascii_dumps(ending.failure.inner(ending.request_id)) if ending.failure else ""


def _insert_attempts(endings: Sequence[Ending], moved: dict[UUID, _Moved]) -> None:
    rows = [_attempt_row(ending, moved[ending.task_id]) for ending in endings]
    copy_rows(TaskAttempt._meta.db_table, _ATTEMPT, rows)


def _insert_results(endings: Sequence[Ending], moved: dict[UUID, _Moved]) -> None:
    given = [ending for ending in endings if ending.result is not None and moved[ending.task_id].is_final]
    again = [ending.task_id for ending in given if ending.cycle > 1]
    if again:  # a redrive's result takes the place of the one before
        TaskResult.objects.filter(task_id__in=again).delete()
    rows = [(ending.task_id, ending.token, ending.result, moved[ending.task_id].at) for ending in given]
    copy_rows(TaskResult._meta.db_table, _RESULT, rows)


def _attempt_row(ending: Ending, moved: _Moved) -> tuple[Any, ...]:
    failure, decision = ending.failure, ending.decision
    outcome = "cancelled" if moved.state == states.CANCELLED and not decision.lost else decision.outcome
    return (
        ending.task_id, ending.number, ending.cycle, ending.token, ending.worker, ending.started_at,
        moved.at, outcome,
        decision.charged, failure.code if failure else "", failure.status if failure else None,
        failure.message if failure else "", failure.fingerprint if failure else "",
        failure.traceback if failure else "", ending.upstream[:200],
        sum(entry.input_tokens for entry in ending.entries), sum(entry.output_tokens for entry in ending.entries),
        sum(entry.cost_nusd for entry in ending.entries),
    )  # fmt: skip


def _deaths(won: Sequence[Ending], moved: dict[UUID, _Moved]) -> list[Death]:
    return [
        Death(
            task_id=ending.task_id,
            project_id=row.finished.project_id,
            api_key_id=row.api_key_id,
            kind=row.finished.kind,
            queue=row.queue,
            cycle=row.cycle,
            attempt=ending.number,
            fingerprint=ending.failure.fingerprint,
            upstream=ending.upstream,
            error=ending.failure.inner(ending.request_id),
            status=ending.failure.status,
        )
        for ending in won
        if (row := moved[ending.task_id]).state == states.DEAD and ending.failure is not None
    ]
