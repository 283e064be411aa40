"""Says what is known of dead letters, without their texts, as plain values for a terminal or a script."""

import json
from collections.abc import Sequence
from typing import Any

from apps.core.database import related
from apps.dead_letters import queries
from apps.dead_letters.models import DeadLetter
from apps.tasks.models import Task, shown_id

LISTED = ("id", "state", "kind", "queue", "code", "attempts", "created_at", "group", "message")


def facts(letters: Sequence[DeadLetter]) -> list[dict[str, Any]]:
    """Plain values. Groups must be at hand. message: as the task died of it; of one that went on, the group's."""
    tasks = Task.objects.filter(pk__in=[letter.task_id for letter in letters]).only("id", "cycle", "error")
    errors = {(task.pk, task.cycle): json.loads(task.error) for task in tasks if task.error}
    return [_facts(letter, errors.get((letter.task_id, letter.cycle), {})) for letter in letters]


def _facts(letter: DeadLetter, error: dict[str, Any]) -> dict[str, Any]:
    group = related(letter, "group")
    return {
        "id": queries.shown_id(letter.pk),
        "task": shown_id(letter.task_id),
        "kind": letter.kind,
        "queue": letter.queue,
        "code": letter.code,
        "message": error.get("message") or (group.message if group else ""),
        "upstream": group.upstream if group else "",
        "attempts": letter.attempts,
        "created_at": letter.created_at,
        "group": letter.group_id,
        "state": letter.state,
    }


def decision(letter: DeadLetter) -> dict[str, Any]:
    """Who has decided what, and how its redriven task has ended."""
    return {
        "reviewed_at": letter.reviewed_at,
        "decided_at": letter.decided_at,
        "decided_by": letter.decided_by,
        "reason": letter.reason,
        "discard_code": letter.discard_code,
        "operation": letter.operation_id.hex if letter.operation_id else None,
        "outcome": letter.outcome,
    }
