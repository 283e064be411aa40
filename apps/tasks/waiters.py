"""Lets many requests wait for news of tasks with one query each 250 ms for the whole process."""

import asyncio
import contextvars
from collections import defaultdict
from typing import NamedTuple
from uuid import UUID

import structlog
from django.db import connection

from apps.core.database import LOST_CONNECTION, in_db
from apps.tasks import states

log = structlog.get_logger(__name__)

LOOK = 0.25  # seconds


class Glimpse(NamedTuple):
    """What of a task's row tells that there is news."""

    state: str
    attempt: int
    cycle: int

    def is_final(self) -> bool:
        """Whether it has ended."""
        return self.state in states.FINAL


class Waiters:
    """Those of one loop who wait for news of tasks."""

    def __init__(self) -> None:
        self._waiting: defaultdict[UUID, dict[asyncio.Future[None], Glimpse | None]] = defaultdict(dict)
        self._looking: asyncio.Task[None] | None = None

    async def wait_for_end(self, task_id: UUID, seconds: float) -> bool:
        """Whether the task is final, after at most so many seconds."""
        return await self._wait(task_id, None, seconds)

    async def wait_for_news(self, task_id: UUID, seen: Glimpse, seconds: float) -> bool:
        """Whether the task is not any more as it was seen, after at most so many seconds."""
        return await self._wait(task_id, seen, seconds)

    async def _wait(self, task_id: UUID, seen: Glimpse | None, seconds: float) -> bool:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[task_id][future] = seen
        if self._looking is None or self._looking.done():
            # In a context of its own: it serves all who wait, not the request that was first.
            empty = contextvars.Context()
            self._looking = asyncio.get_running_loop().create_task(self._look(), context=empty)
        try:
            async with asyncio.timeout(seconds):
                await future
            return True
        except TimeoutError:
            return False
        finally:
            waiting = self._waiting[task_id]
            del waiting[future]
            if not waiting:
                del self._waiting[task_id]

    async def _look(self) -> None:
        while self._waiting:
            try:
                for task_id, now in (await in_db(_glimpse, list(self._waiting))).items():
                    for future, seen in self._waiting.get(task_id, {}).items():
                        if not future.done() and (now.is_final() if seen is None else now != seen):
                            future.set_result(None)
            except LOST_CONNECTION as error:
                log.warning("waiters_cannot_look", error=type(error).__name__)
            await asyncio.sleep(LOOK)


def _glimpse(task_ids: list[UUID]) -> dict[UUID, Glimpse]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, state, attempt, cycle FROM tasks_task WHERE id = ANY(%s)", [task_ids])
        return {row[0]: Glimpse(*row[1:]) for row in cursor.fetchall()}


_waiters: tuple[asyncio.AbstractEventLoop, Waiters] | None = None


def waiters() -> Waiters:
    """The running loop's."""
    global _waiters
    loop = asyncio.get_running_loop()
    if _waiters is None or _waiters[0] is not loop:
        _waiters = (loop, Waiters())
    return _waiters[1]
