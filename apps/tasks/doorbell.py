"""Rings the workers when work is due: a Celery message that only names queues, after the commit and never in its way.

A ring is a hint. The first is sent at once, those that follow within 20 ms as one; a thread of its own sends them,
never twice, and none for a while after Redis has failed. A lost ring costs a second: the clock rings for what is due.
"""

import threading
import time
from collections.abc import Collection

import structlog
from celery import current_app

from apps.core import failpoints

log = structlog.get_logger(__name__)

WAKE = "redrive.wake"
RINGS = "rings"  # the Celery queue of the messages
APART = 0.02  # seconds between two rings: each costs a worker half a millisecond
QUIET = 1.0  # seconds without rings after a failure
EXPIRES = 5.0  # seconds


class Doorbell:
    """One process's rings."""

    def __init__(self) -> None:
        self._queues: set[str] = set()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._quiet_until = 0.0

    def ring(self, queues: Collection[str]) -> None:
        """Wake the workers of these queues, soon. Never blocks, never raises."""
        with self._lock:
            self._queues.update(queues)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="redrive-doorbell", daemon=True)
                self._thread.start()
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            with self._lock:
                queues, self._queues = self._queues, set()
            if queues and time.monotonic() >= self._quiet_until:
                self._send(sorted(queues))
            time.sleep(APART)

    def _send(self, queues: list[str]) -> None:
        try:
            failpoints.hit("doorbell.send")
            current_app.send_task(WAKE, args=[queues], queue=RINGS, ignore_result=True, retry=False, expires=EXPIRES)
        except Exception as error:  # whatever the broker's library raises, the ring is lost and nothing else
            self._quiet_until = time.monotonic() + QUIET
            log.warning("ring_lost", error=type(error).__name__)


_doorbell = Doorbell()


def ring(queues: Collection[str]) -> None:
    """Wake the workers of these queues. Never blocks, never raises."""
    if queues:
        _doorbell.ring(queues)
