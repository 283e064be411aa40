"""Takes in tasks that die, in the transaction in which they die: without its letter no task is dead.

Also notes how redriven tasks end, in the same way: whether a redrive has helped is known when its task has ended.
Triggers tally both for the counts of the groups (`tallies`).
"""

from typing import Any

from django.db import connection

from apps.core import failpoints, ids
from apps.tasks import fingerprint
from apps.tasks.signals import Death, Finished

_GROUPS = """
INSERT INTO dead_letters_failuregroup (fingerprint, version, kind, queue, upstream, code, status, message)
SELECT f, %s, k, q, u, c, nullif(s, 0), m
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::int[], %s::text[]) AS g(f, k, q, u, c, s, m)
WHERE NOT EXISTS (SELECT 1 FROM dead_letters_failuregroup WHERE fingerprint = f)  -- a conflict would wait for a fold
ON CONFLICT DO NOTHING
"""
# So that retention, which deletes groups without letters, waits for this transaction or is waited for.
_KEEP = "SELECT fingerprint FROM dead_letters_failuregroup WHERE fingerprint = ANY(%s) ORDER BY 1 FOR KEY SHARE"
_LETTERS = """
INSERT INTO dead_letters_deadletter (id, task_id, cycle, group_id, project_id, api_key_id, kind, queue, code, attempts,
  state, created_at, decided_by, reason)
SELECT *, 'open', now(), '', '' FROM unnest(%s::uuid[], %s::uuid[], %s::int[], %s::text[], %s::uuid[], %s::uuid[],
  %s::text[], %s::text[], %s::text[], %s::int[])
"""
_OUTCOMES = """
UPDATE dead_letters_deadletter l SET outcome = f.state
FROM unnest(%s::uuid[], %s::int[], %s::text[]) AS f(task_id, cycle, state)
WHERE l.task_id = f.task_id AND l.cycle = f.cycle - 1 AND l.state = 'redriven' AND l.outcome = ''
"""


def receive(deaths: list[Death], **_: Any) -> None:
    """Receiver of tasks_died: a letter each, in as many groups as there are fingerprints."""
    failpoints.hit("intake.before_letters")
    groups = {death.fingerprint: death for death in deaths}
    # Sorted, so that two batches wait for one another in one order.
    first = [groups[print_] for print_ in sorted(groups)]
    with connection.cursor() as cursor:
        cursor.execute(_LETTERS, _columns([_letter(death) for death in deaths]))
        for _attempt in range(2):  # a group that was deleted between the two statements is made again
            cursor.execute(_GROUPS, [fingerprint.VERSION, *_columns([_group(death) for death in first])])
            cursor.execute(_KEEP, [sorted(groups)])
            if len(cursor.fetchall()) == len(groups):
                break


def note_outcomes(tasks: list[Finished], **_: Any) -> None:
    """Receiver of tasks_finished: how a redriven task has ended is kept with the letter that it was redriven from."""
    redriven = sorted((task.task_id, task.cycle, task.state) for task in tasks if task.cycle > 1)
    if redriven:
        with connection.cursor() as cursor:
            cursor.execute(_OUTCOMES, _columns(redriven))


def _group(death: Death) -> tuple[Any, ...]:
    message = fingerprint.normalise(death.error["message"])
    return (
        death.fingerprint, death.kind, death.queue, death.upstream, death.error["code"], death.status or 0, message,
    )  # fmt: skip


def _letter(death: Death) -> tuple[Any, ...]:
    return (
        ids.new_uuid(), death.task_id, death.cycle, death.fingerprint, death.project_id, death.api_key_id, death.kind,
        death.queue, death.error["code"], death.attempt,
    )  # fmt: skip


def _columns(rows: list[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
