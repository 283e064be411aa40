"""Finds tasks of all projects for operators, newest first by the order of ids, and tells what was tried with one."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from django.db.models import CharField, OuterRef, QuerySet, Subquery, Value
from django.db.models.functions import Cast, Concat
from django.utils import timezone

from apps.completions.models import NUSD, LedgerEntry
from apps.core import ids
from apps.core.database import related
from apps.tasks import states
from apps.tasks.models import Task, TaskAttempt, WorkerPresence, shown_id

MOST_ATTEMPTS = 100
MOST_CHILDREN = 50
COUNTED_CHILDREN = 10_000
SKEW = timedelta(hours=1)  # ids bear the time of the host that made them, rows that of the database
Rows = TypeVar("Rows", bound="QuerySet[Task]")


def created_between(rows: Rows, since: datetime | None, until: datetime | None) -> Rows:
    """The tasks accepted at or after `since` and before `until`, found by their ids: there is no index on the time."""
    if since is not None:
        rows = rows.filter(pk__gte=ids.first_of(_earlier(since)), created_at__gte=since)
    if until is not None:
        rows = rows.filter(created_at__lt=until)
        if until < timezone.now():
            rows = rows.filter(pk__lt=ids.first_of(until + SKEW))
    return rows


def of_a_request(rows: Rows, request_id: str) -> Rows:
    """The tasks of a request of the last day: older ones would have to be looked for in the whole table."""
    return created_between(rows, timezone.now() - timedelta(days=1), None).filter(request_id=request_id)


def facts(task: Task) -> dict[str, Any]:
    """A task as plain values without its texts; times in ISO 8601."""
    return {
        "id": shown_id(task.pk),
        "state": task.state,
        "kind": task.kind,
        "queue": task.queue,
        "project": str(related(task, "project") or task.project_id),
        "attempts": task.attempt,
        "created_at": task.created_at.isoformat(),
        "due_at": task.next_attempt_at.isoformat() if task.state in states.DUE else None,
        "started_at": task.started_at.isoformat() if task.started_at else None,
        "finished_at": task.finished_at.isoformat() if task.finished_at else None,
        "deadline": task.deadline.isoformat() if task.deadline else None,
        "cancel_requested": task.cancel_requested,
        "cycle": task.cycle,
        "request_id": task.request_id,
        "parent": shown_id(task.parent_id) if task.parent_id else None,
        "error": json.loads(task.error) if task.error else None,
    }


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try for people. wait: seconds between the end of the one before, or the accept, and its start.

    seconds: how long it took, so far where it runs. worker: host:pid if it is still known, else its id.
    """

    number: int
    cycle: int
    outcome: str
    started_at: datetime
    seconds: float
    wait: float
    worker: UUID
    worker_name: str
    charged: bool = False
    error_code: str = ""
    error_status: int | None = None
    error_message: str = ""
    traceback: str = ""
    upstream: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    upstream_request_id: str = ""


def last_attempts(task_id: UUID) -> Sequence[TaskAttempt]:
    """What `timeline` reads: the last hundred attempts that have ended and the one before, first to last."""
    rows = TaskAttempt.objects.filter(task_id=task_id).annotate(worker_name=worker_name())
    return list(rows.order_by("-number")[: MOST_ATTEMPTS + 1])[::-1]


def worker_name() -> Subquery:
    """To annotate rows that have a worker with its name, if it is still known."""
    worker = WorkerPresence.objects.filter(pk=OuterRef("worker"))
    return Subquery(worker.values_list(Concat("host", Value(":"), Cast("pid", CharField()))))  # as its str() does


def timeline(task: Task, rows: Sequence[TaskAttempt] | None = None, running_on: str | None = None) -> list[Attempt]:
    """The last hundred attempts, first to last; the one that runs at the end.

    rows, running_on: `last_attempts`, and the `worker_name` of the task, where they are at hand.
    """
    rows = last_attempts(task.pk) if rows is None else rows
    upstream_ids = _upstream_ids(task) if rows else {}
    ended = rows[0].finished_at if len(rows) > MOST_ATTEMPTS else task.created_at
    found = []
    for row in rows[-MOST_ATTEMPTS:]:
        found.append(_attempt(row, ended, upstream_ids.get(row.number, "")))
        ended = row.finished_at
    if task.worker and task.attempt_started_at:
        began = task.attempt_started_at
        name = _name(task.worker) if running_on is None else running_on
        found.append(
            Attempt(
                task.attempt, task.cycle, states.RUNNING, began, max((timezone.now() - began).total_seconds(), 0.0),
                (began - ended).total_seconds(), task.worker, name,
            )
        )  # fmt: skip
    return found


def _attempt(row: TaskAttempt, ended: datetime, upstream_id: str) -> Attempt:
    return Attempt(
        number=row.number,
        cycle=row.cycle,
        outcome=row.outcome,
        started_at=row.started_at,
        seconds=(row.finished_at - row.started_at).total_seconds(),
        wait=(row.started_at - ended).total_seconds(),
        worker=row.worker,
        worker_name=row.worker_name or "",  # type: ignore[attr-defined]
        charged=row.charged,
        error_code=row.error_code,
        error_status=row.error_status,
        error_message=row.error_message,
        traceback=row.traceback,
        upstream=row.upstream,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cost_usd=row.cost_nusd / NUSD,
        upstream_request_id=upstream_id,
    )


@dataclass(frozen=True, slots=True)
class Family:
    """The children of a parent: the first of them, and how many there are in each state (counting ends at 10,000)."""

    first: Sequence[Task]
    counts: dict[str, int]

    @property
    def total(self) -> int:
        """How many were counted."""
        return sum(self.counts.values())


def children(task: Task) -> Family:
    """A task's children, by their place."""
    of_it = Task.objects.filter(parent_id=task.pk)
    first = list(of_it.order_by("item_index")[:MOST_CHILDREN])
    if not first:
        return Family([], {})
    found = Counter(of_it.order_by("item_index").values_list("state", flat=True)[:COUNTED_CHILDREN])
    return Family(first, {state: found[state] for state in states.ALL if found[state]})


def _upstream_ids(task: Task) -> dict[int, str]:
    """By attempt the id that the upstream gave its request: what its support asks for."""
    rows = LedgerEntry.objects.filter(request_id=task.request_id, task_id=task.pk).exclude(upstream_request_id="")
    found = rows.order_by("created_at").values_list("task_attempt", "upstream_request_id")
    return {number: upstream_id for number, upstream_id in found if number is not None}


def _name(worker: UUID) -> str:
    return str(WorkerPresence.objects.filter(pk=worker).first() or "")


def _earlier(moment: datetime) -> datetime:
    try:
        return moment - SKEW
    except OverflowError:
        return moment
