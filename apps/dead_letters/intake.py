"""Takes in tasks that die, in the transaction in which they die: without its letter no task is dead."""

from typing import Any

from django.db import connection

from apps.core import failpoints, ids
from apps.tasks import fingerprint
from apps.tasks.signals import Death

_GROUPS = """
INSERT INTO dead_letters_failuregroup (fingerprint, kind, queue, upstream, code, message, first_seen)
SELECT *, now() FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])
ON CONFLICT DO NOTHING
"""
_LETTERS = """
INSERT INTO dead_letters_deadletter (id, task_id, cycle, group_id, project_id, api_key_id, kind, queue, code, attempts,
  state, created_at, decided_by, reason)
SELECT *, 'open', now(), '', '' FROM unnest(%s::uuid[], %s::uuid[], %s::int[], %s::text[], %s::uuid[], %s::uuid[],
  %s::text[], %s::text[], %s::text[], %s::int[])
"""


def receive(deaths: list[Death], **_: Any) -> None:
    """Receiver of tasks_died: a letter each, in as many groups as there are fingerprints."""
    failpoints.hit("intake.before_letters")
    groups = {death.fingerprint: death for death in deaths}
    # Sorted, so that two batches wait for one another in one order.
    first = [groups[print_] for print_ in sorted(groups)]
    with connection.cursor() as cursor:
        cursor.execute(_LETTERS, _columns([_letter(death) for death in deaths]))
        cursor.execute(_GROUPS, _columns([_group(death) for death in first]))


def _group(death: Death) -> tuple[Any, ...]:
    message = fingerprint.normalise(death.error["message"])
    return (death.fingerprint, death.kind, death.queue, death.upstream, death.error["code"], message)


def _letter(death: Death) -> tuple[Any, ...]:
    return (
        ids.new_uuid(), death.task_id, death.cycle, death.fingerprint, death.project_id, death.api_key_id, death.kind,
        death.queue, death.error["code"], death.attempt,
    )  # fmt: skip


def _columns(rows: list[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
