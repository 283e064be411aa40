"""The clock: a loop that does the registered chores, each in a thread of its own, once at a time on all machines.

Any number of clocks may run: a chore takes an advisory lock for its transaction, and whoever does not get it has
nothing to do. Not a scheduler of jobs: what rescues the queues must not wait in one of them.
"""

import contextlib
import functools
import os
import socket
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from django.db import connection, transaction

from apps.core.database import LOST_CONNECTION, storable, with_connection

log = structlog.get_logger(__name__)

LOCK_CLASS = 0xC10C
MAX_ERROR = 500  # characters
Work = Callable[[], int]
Beat = Callable[[str, str, str], None]


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to do each `every` seconds; it returns how much it found to do."""

    name: str
    every: float
    work: Work


_chores: dict[str, Chore] = {}
_record: list[Beat] = []


def register(name: str, every: float, work: Work) -> None:
    """Add a chore; from AppConfig.ready. It is blocking, quick, and safe to be killed at any point."""
    _chores[name] = Chore(name, every, work)


def record_beats(record: Beat) -> None:
    """Name the function that keeps the heartbeat: (chore, clock, error or empty)."""
    _record[:] = [record]


def chores() -> list[Chore]:
    """All chores, by name."""
    return [_chores[name] for name in sorted(_chores)]


def keep_off(name: str) -> None:
    """Let no clock do the chore until the caller's transaction ends; waits for one that is at it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", _lock(name))


def do(chore: Chore, clock: str = "") -> int | None:
    """Do a chore once; None where another clock is at it."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", _lock(chore.name))
            if not cursor.fetchone()[0]:
                return None
        found = chore.work()
        for record in _record:
            record(chore.name, clock, "")
    return found


def note_failure(chore: Chore, error: Exception, clock: str = "") -> None:
    """Keep in the heartbeat that a chore has failed."""
    words = storable(f"{type(error).__name__}: {error}")[:MAX_ERROR]
    for record in _record:
        record(chore.name, clock, words)


def _lock(name: str) -> list[int]:
    return [LOCK_CLASS, zlib.crc32(name.encode()) & 0x7FFFFFFF]


class Clock:
    """One process's clock."""

    def __init__(self) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._stopped = threading.Event()

    def run(self) -> None:
        """Do the chores until `stop`."""
        threads = [
            threading.Thread(target=self._repeat, args=[chore], name=f"redrive-clock-{chore.name}", daemon=True)
            for chore in chores()
        ]
        for thread in threads:
            thread.start()
        log.info("clock_started", clock=self.name, chores=[chore.name for chore in chores()])
        self._stopped.wait()
        for thread in threads:
            thread.join(10)

    def stop(self) -> None:
        """Let what runs come to its end."""
        self._stopped.set()

    def _repeat(self, chore: Chore) -> None:
        while not self._stopped.is_set():
            try:
                with_connection(lambda: do(chore, self.name))
            except LOST_CONNECTION as error:
                log.warning("clock_waits_for_database", chore=chore.name, error=type(error).__name__)
            except Exception as error:  # a chore that fails must not end the others, nor itself for ever
                log.error("chore_failed", chore=chore.name, exc_info=error)
                with contextlib.suppress(Exception):  # the log has it
                    with_connection(functools.partial(note_failure, chore, error, self.name))
            self._stopped.wait(chore.every)
