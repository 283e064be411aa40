"""Follows a task: its states, progress and text as events with ids that a client resumes from without a gap.

No event is stored. States are derived from the task and its attempts, progress and text are read from stream_log. The
id of an event, its `sequence_number`, is `{attempt}.{n}`: n is 0 where the attempt begins (`0.0`: accepted), counts
its progress and text from 1, is ENDED where it ended, and ENDED + 1 where the task ended between two attempts.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from typing import Any
from uuid import UUID

from apps.completions import stream_log
from apps.core.database import in_db
from apps.core.errors import InvalidRequest
from apps.tasks import queries, states
from apps.tasks.errors import TaskNotFound
from apps.tasks.models import Task, TaskAttempt
from apps.tasks.schemas import unix
from apps.tasks.waiters import Glimpse, waiters

ENDED = 1_000_000_000
SOON, LATER = 0.05, 0.5  # seconds between looks into the log of a running attempt: after a piece, after silence
_ID = re.compile(r"([0-9]{1,9})\.([0-9]{1,10})", re.ASCII)
_TYPES = {"text": "task.text", "progress": "task.progress", "truncated": "task.truncated"}
Json = dict[str, Any]
Place = tuple[int, int]
BEFORE_ALL: Place = (-1, 0)


@dataclass(frozen=True, slots=True)
class Event:
    """One event. type: task.state, task.progress, task.text or task.truncated (more text than is kept)."""

    id: str
    type: str
    data: Json

    def body(self) -> Json:
        """As clients get it."""
        return {"type": self.type, "sequence_number": self.id, **self.data}


@dataclass(frozen=True, slots=True)
class _Step:
    """The beginning or end of an attempt; `log`: progress and text come before it."""

    place: Place
    data: Json
    log: bool = False


def place_of(text: str) -> Place:
    """The place of an event's id; before all events for an empty one. Raises InvalidRequest."""
    if not text:
        return BEFORE_ALL
    match = _ID.fullmatch(text)
    if match is None:
        raise InvalidRequest("It is the `sequence_number` of an event, such as 1.0.", param="starting_after")
    return int(match[1]), int(match[2])


async def follow(project_id: UUID, task_id: UUID, *, starting_after: str = "") -> AsyncGenerator[Event, None]:
    """The events after `starting_after`; ends after that of a final state.

    Raises TaskNotFound and InvalidRequest before the first event. Close it (contextlib.aclosing) to let go.
    """
    after = place_of(starting_after)
    while True:
        glimpse, steps = await in_db(_steps, project_id, task_id, after)
        for step in steps:
            if step.log:
                async for place, event in _pieces(task_id, step.place[0], after):
                    after = place
                    yield event
            after = step.place
            yield _event(step.place, "task.state", step.data)
        if glimpse.is_final():
            return
        async for place, event in _live(task_id, glimpse, after):
            after = place
            yield event


async def is_over(project_id: UUID, task_id: UUID, *, starting_after: str = "") -> bool:
    """Whether `follow` would end without an event. Raises TaskNotFound, InvalidRequest."""
    glimpse, steps = await in_db(_steps, project_id, task_id, place_of(starting_after))
    return glimpse.is_final() and not steps


async def _live(task_id: UUID, glimpse: Glimpse, after: Place) -> AsyncGenerator[tuple[Place, Event], None]:
    """What the running attempt produces, until the task's row has changed."""
    news = asyncio.create_task(waiters().wait_for_news(task_id, glimpse, 3600))
    delay = SOON
    try:
        while not news.done():
            delay = min(delay * 1.5, LATER)
            if glimpse.state == states.RUNNING:
                async for place, event in _pieces(task_id, glimpse.attempt, after):
                    after, delay = place, SOON
                    yield place, event
            await asyncio.wait([news], timeout=delay)
        news.result()
    finally:
        news.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await news


async def _pieces(task_id: UUID, attempt: int, after: Place) -> AsyncGenerator[tuple[Place, Event], None]:
    number = after[1] if after[0] == attempt else 0
    if number >= ENDED:
        return
    log = stream_log.key(task_id.hex, attempt)
    while found := await stream_log.read(log, number):
        for number, entry in found:
            place = (attempt, number)
            kind = _TYPES[entry.pop("type")]
            yield place, _event(place, kind, {"attempt": attempt, **entry})
        if len(found) < stream_log.PAGE:
            return


def _event(place: Place, kind: str, data: Json) -> Event:
    return Event(f"{place[0]}.{place[1]}", kind, data)


def _steps(project_id: UUID, task_id: UUID, after: Place) -> tuple[Glimpse, list[_Step]]:
    task = Task.objects.filter(pk=task_id, project_id=project_id).first()
    if task is None:
        raise TaskNotFound()
    # Attempts that ended since the task was read are left for the next look.
    last = task.attempt - 1 if task.state == states.RUNNING else task.attempt
    rows = list(
        TaskAttempt.objects.filter(task_id=task_id, number__gte=after[0], number__lte=last)
        .order_by("number")
        .defer("traceback")
    )
    steps = [_Step((0, 0), _state(states.PENDING, 0, task.created_at))]
    for row, following in zip_longest(rows, rows[1:]):
        steps.append(_Step((row.number, 0), _state(states.RUNNING, row.number, row.started_at)))
        steps.append(_Step((row.number, ENDED), _end(task, row, following), log=True))
    if task.state == states.RUNNING:
        steps.append(_Step((task.attempt, 0), _state(states.RUNNING, task.attempt, task.attempt_started_at)))
    if task.finished_at is not None:
        if not (rows and rows[-1].finished_at == task.finished_at):
            ended = _state(task.state, task.attempt, task.finished_at, json.loads(task.error) if task.error else None)
            steps.append(_Step((task.attempt, ENDED + 1), ended))
        steps[-1].data["task"] = queries.render([task], largest=queries.LARGEST_TOLD)[0]
    return Glimpse(task.state, task.attempt, task.cycle), [step for step in steps if step.place > after]


def _end(task: Task, row: TaskAttempt, following: TaskAttempt | None) -> Json:
    next_cycle = following.cycle if following is not None else task.cycle
    if row.outcome in (TaskAttempt.Outcome.SUCCEEDED, TaskAttempt.Outcome.CANCELLED):
        state = str(row.outcome)
    elif row.outcome == TaskAttempt.Outcome.WAITING:
        state = states.RUNNING
    elif next_cycle != row.cycle:
        state = states.DEAD
    elif following is None and task.finished_at == row.finished_at:
        state = task.state
    else:
        state = states.RETRYING
    error = {"code": row.error_code, "message": row.error_message, "status": row.error_status}
    return _state(state, row.number, row.finished_at, error if row.error_code else None)


def _state(state: str, attempt: int, at: datetime | None, error: Json | None = None) -> Json:
    return {"status": state, "attempt": attempt, "at": unix(at), "error": error}
