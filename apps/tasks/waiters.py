"""Lets many requests wait for tasks with one query each 250 ms for the whole process."""

import asyncio
from collections import defaultdict
from uuid import UUID

import structlog
from django.db import connection

from apps.core.database import LOST_CONNECTION, in_db

log = structlog.get_logger(__name__)

LOOK = 0.25  # seconds


class Waiters:
    """Those of one loop who wait for the end of a task."""

    def __init__(self) -> None:
        self._waiting: defaultdict[UUID, set[asyncio.Future[None]]] = defaultdict(set)
        self._looking: asyncio.Task[None] | None = None

    async def wait_for_end(self, task_id: UUID, seconds: float) -> bool:
        """Whether the task is final, after at most so many seconds."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[task_id].add(future)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            async with asyncio.timeout(seconds):
                await future
            return True
        except TimeoutError:
            return False
        finally:
            waiting = self._waiting[task_id]
            waiting.discard(future)
            if not waiting:
                del self._waiting[task_id]

    async def _look(self) -> None:
        while self._waiting:
            try:
                for task_id in await in_db(_final, list(self._waiting)):
                    for future in self._waiting.get(task_id, ()):
                        if not future.done():
                            future.set_result(None)
            except LOST_CONNECTION as error:
                log.warning("waiters_cannot_look", error=type(error).__name__)
            await asyncio.sleep(LOOK)


def _final(task_ids: list[UUID]) -> list[UUID]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM tasks_task WHERE id = ANY(%s) AND finished_at IS NOT NULL", [task_ids])
        return [row[0] for row in cursor.fetchall()]


_waiters: tuple[asyncio.AbstractEventLoop, Waiters] | None = None


def waiters() -> Waiters:
    """The running loop's."""
    global _waiters
    loop = asyncio.get_running_loop()
    if _waiters is None or _waiters[0] is not loop:
        _waiters = (loop, Waiters())
    return _waiters[1]
