"""Reads tasks for those who may see them: one, its attempts, and pages of them. Always within one project."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Func, IntegerField, Q

from apps.completions.models import NUSD
from apps.core import ids
from apps.core.errors import InvalidRequest
from apps.tasks import kinds, states
from apps.tasks.errors import TaskNotFound
from apps.tasks.models import PREFIX, Task, TaskAttempt, TaskResult, shown_id
from apps.tasks.schemas import unix

SKEW = timedelta(minutes=5)  # that a process' clock, which ids are made by, may be off the database's
LARGEST_LISTED = 64 * 1024  # bytes of a result in a list
LARGEST_TOLD = 256 * 1024  # bytes of a result in an event or a webhook
OMITTED: "dict[str, Any]" = {"result": None, "result_omitted": True}
Json = dict[str, Any]

# Parts of the status body that apps above add: (the tasks) -> per task what to add.
Part = Callable[[Sequence[Task]], dict[UUID, Any]]
_parts: dict[str, Part] = {"dead_letter": lambda tasks: {}}


def register_part(name: str, part: Part) -> None:
    """Name what fills a key of the status body; from AppConfig.ready of the app that owns it."""
    _parts[name] = part


def task_id(text: str, *, param: str | None = None) -> UUID:
    """The id of `task_...`. Raises TaskNotFound, or InvalidRequest naming `param`."""
    try:
        if text.startswith(PREFIX) and len(text) == len(PREFIX) + 32:
            return UUID(text.removeprefix(PREFIX))
    except ValueError:
        pass
    raise InvalidRequest("It is the id of a task: task_...", param=param) if param else TaskNotFound()


def accepted(found: UUID, kind: str, priority: str, created_at: datetime) -> Json:
    """The 202 body."""
    shown = shown_id(found)
    at = f"/v1/tasks/{shown}"
    return {
        "task_id": shown,
        "status": states.PENDING,
        "kind": kind,
        "priority": priority,
        "created_at": unix(created_at),
        "links": {"self": at, "events": f"{at}/events", "cancel": f"{at}/cancel"},
    }


def one(project_id: UUID, found: UUID) -> Json:
    """The status body. Raises TaskNotFound."""
    task = Task.objects.filter(pk=found, project_id=project_id).first()
    if task is None:
        raise TaskNotFound()
    return render([task])[0]


def render(tasks: Sequence[Task], *, largest: int | None = None) -> list[Json]:
    """The status bodies of tasks. A result of more than `largest` bytes is left out, and `result_omitted` says so."""
    rows = TaskResult.objects.filter(pk__in=[task.pk for task in tasks if task.finished_at])
    omitted: set[UUID] = set()
    if largest is not None:
        size = Func("body", function="octet_length", output_field=IntegerField())  # known without reading the text
        omitted = set(rows.annotate(size=size).filter(size__gt=largest).values_list("pk", flat=True))
    results = dict(rows.exclude(pk__in=omitted).values_list("pk", "body"))
    added = parts(tasks)
    return [
        {
            **_status(task, results.get(task.pk), {name: found.get(task.pk) for name, found in added.items()}),
            **(OMITTED if task.pk in omitted else {}),
        }
        for task in tasks
    ]


def parts(tasks: Sequence[Task]) -> dict[str, dict[UUID, Any]]:
    """What apps above tell of tasks, by key of the status body."""
    return {name: part(tasks) for name, part in _parts.items()}


def _status(task: Task, result: str | None, added: dict[str, Any]) -> Json:
    return {
        **accepted(task.pk, task.kind, task.priority, task.created_at),
        "status": states.shown(task.state),
        "started_at": unix(task.started_at),
        "finished_at": unix(task.finished_at),
        "cancel_requested": task.cancel_requested,
        "metadata": json.loads(task.metadata) if task.metadata else {},
        "result": json.loads(result) if result is not None else None,
        "error": json.loads(task.error) if task.error else None,
        "progress": json.loads(task.progress) if task.progress else None,
        "attempts": task.attempt,
        **added,
    }


_RUNNING = (
    "SELECT r.id FROM tasks_task r WHERE r.state = 'running' "
    "UNION ALL SELECT w.id FROM tasks_task w WHERE w.state = 'waiting'"
)


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list is narrowed to; empty ones narrow nothing. Times: unix seconds, `created_before` exclusive."""

    status: str = ""
    kind: str = ""
    priority: str = ""
    created_after: float | None = None
    created_before: float | None = None
    metadata: tuple[tuple[str, str], ...] = ()


def page(project_id: UUID, filters: Filters, *, after: UUID | None, limit: int) -> Json:
    """A page, newest first, by the index on (project, id): the order of ids is that of the accepts."""
    rows = Task.objects.filter(project_id=project_id).order_by("-id")
    if after is not None:
        rows = rows.filter(pk__lt=after)
    if filters.status == states.RUNNING:
        # The few of all projects first, by their own indexes: a walk from the newest may pass millions that have ended.
        rows = rows.extra(where=[f"tasks_task.id = ANY(ARRAY({_RUNNING}))"])  # noqa: S610 (a constant)
    elif filters.status:
        rows = rows.filter(state=filters.status)
    rows = rows.filter(kind=filters.kind) if filters.kind else rows.exclude(kind__in=kinds.silent())
    if filters.priority:
        rows = rows.filter(priority=filters.priority)
    if filters.created_after is not None:
        since = datetime.fromtimestamp(filters.created_after).astimezone()
        rows = rows.filter(created_at__gte=since, pk__gte=ids.first_of(since - SKEW))
    if filters.created_before is not None:
        until = datetime.fromtimestamp(filters.created_before).astimezone()
        rows = rows.filter(created_at__lt=until, pk__lt=ids.first_of(until + SKEW))
    for key, value in filters.metadata:
        # As it is stored: compact JSON, ASCII-escaped; within a string every quote has a backslash before it.
        pair = f"{json.dumps(key)}:{json.dumps(value)}"
        rows = rows.filter(Q(metadata__contains=f"{{{pair}") | Q(metadata__contains=f",{pair}"))
    found = list(rows[: limit + 1])
    shown = render(found[:limit], largest=LARGEST_LISTED)
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["task_id"] if shown else None,
        "last_id": shown[-1]["task_id"] if shown else None,
        "has_more": len(found) > limit,
    }


def attempts(project_id: UUID, found: UUID) -> Json:
    """The attempts of a task, first to last; the one that runs has no end yet. Raises TaskNotFound."""
    task = Task.objects.filter(pk=found, project_id=project_id).first()
    if task is None:
        raise TaskNotFound()
    data = [_attempt(row) for row in TaskAttempt.objects.filter(task_id=found).order_by("number")]
    if task.state == states.RUNNING:
        data.append(
            {
                "number": task.attempt,
                "outcome": "running",
                "started_at": unix(task.attempt_started_at),
                "finished_at": None,
                "error": None,
                "upstream": None,
                "usage": {"input_tokens": 0, "output_tokens": 0},
                "cost_usd": 0.0,
            }
        )
    return {"object": "list", "data": data, "has_more": False}


def _attempt(row: TaskAttempt) -> Json:
    error = None
    if row.error_code:
        error = {"code": row.error_code, "message": row.error_message, "status": row.error_status}
    return {
        "number": row.number,
        "outcome": row.outcome,
        "started_at": unix(row.started_at),
        "finished_at": unix(row.finished_at),
        "error": error,
        "upstream": row.upstream or None,
        "usage": {"input_tokens": row.input_tokens, "output_tokens": row.output_tokens},
        "cost_usd": row.cost_nusd / NUSD,
    }
