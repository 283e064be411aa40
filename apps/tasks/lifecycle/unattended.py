"""Writes the deaths of tasks that wait, of which no attempt tells: their errors, and the news with their letters."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from django.db import connection

from apps.core import json_codec
from apps.tasks import states
from apps.tasks.lifecycle.ending import Failure
from apps.tasks.lifecycle.finish import tell
from apps.tasks.signals import Death, Finished

BATCH = 500
RETURNING = """t.id, t.project_id, t.api_key_id, t.kind, t.queue, t.cycle, t.attempt, t.callback_url, t.parent_id,
  t.request_id"""
"""What a statement that lets tasks `t` die returns first: a Dying."""

_ERROR = """
UPDATE tasks_task t SET error = f.error FROM unnest(%s::uuid[], %s::text[]) AS f(id, error) WHERE t.id = f.id
"""


class Dying(NamedTuple):
    """A task that has just become dead, in the caller's transaction."""

    id: UUID
    project_id: UUID
    api_key_id: UUID | None
    kind: str
    queue: str
    cycle: int
    attempt: int
    callback_url: str
    parent_id: UUID | None
    request_id: str


def tell_deaths(dying: Sequence[tuple[Dying, Failure, str]]) -> None:
    """Write what they died of and tell of it, in the caller's transaction: (the task, its failure, the upstream)."""
    if not dying:
        return
    deaths = [_death(*one) for one in dying]
    with connection.cursor() as cursor:
        errors = [json_codec.ascii_dumps(death.error) for death in deaths]
        cursor.execute(_ERROR, [[death.task_id for death in deaths], errors])
    finished = [
        Finished(task.id, task.project_id, task.kind, states.DEAD, task.callback_url, task.parent_id, task.cycle)
        for task, _, _ in dying
    ]
    tell(finished, deaths)


def _death(task: Dying, failure: Failure, upstream: str) -> Death:
    return Death(
        task_id=task.id,
        project_id=task.project_id,
        api_key_id=task.api_key_id,
        kind=task.kind,
        queue=task.queue,
        cycle=task.cycle,
        attempt=task.attempt,
        fingerprint=failure.fingerprint,
        upstream=upstream,
        error=failure.inner(task.request_id),
        status=failure.status,
    )
