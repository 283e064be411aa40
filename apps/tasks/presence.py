"""A worker's sign of life: a lease renewed by its own thread over its own connection, and a session lock.

The connection is not of the pool, so that a pool that is used up never makes a worker look dead. One that breaks is
made anew at once: without its lock the worker looks dead within a second. The same thread is the watchdog: a process
whose loop has not turned for a TTL ends itself, because it would hold its tasks for nothing.
"""

import os
import select
import socket
import threading
import time
from collections.abc import Callable
from uuid import UUID

import psycopg
import structlog
from django.conf import settings
from django.db import connection

from apps.core import failpoints
from apps.tasks.lifecycle.reap import LOCK_CLASS

log = structlog.get_logger(__name__)

RENEWALS = 5  # in a TTL
FIRST_RETRY = 0.05  # seconds, doubled up to the time of a renewal
EXIT_STUCK = 70  # EX_SOFTWARE
STANDS = 0.8  # of the TTL, for which a beat is relied on
# Of Django's parameters: what only its own connections know, and what is set here.
NOT_TAKEN = {
    "context", "cursor_factory", "prepare_threshold", "connect_timeout", "application_name", "options",
    "tcp_user_timeout",
}  # fmt: skip

_BEAT = """
INSERT INTO tasks_workerpresence (id, lock_key, host, pid, queues, slots, in_flight, started_at, beat_at, expires_at)
VALUES (%(id)s, %(lock)s, %(host)s, %(pid)s, %(queues)s, %(slots)s, %(in_flight)s, now(), now(),
        now() + make_interval(secs => %(ttl)s))
ON CONFLICT (id) DO UPDATE SET beat_at = now(), lock_key = excluded.lock_key,
  expires_at = excluded.expires_at, in_flight = excluded.in_flight
"""


class Presence:
    """Renews until `stop`. in_flight: how many attempts run. turned: when the loop last turned (monotonic seconds)."""

    def __init__(
        self,
        worker: UUID,
        queues: list[str],
        slots: int,
        *,
        in_flight: Callable[[], int],
        turned: Callable[[], float],
    ) -> None:
        self.worker = worker
        self.registered = threading.Event()
        self._stands_until = 0.0  # monotonic seconds
        self._has_lock = False
        self._lock_key = worker.int & 0x7FFFFFFF
        self._values = {
            "id": worker,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "queues": ",".join(queues),
            "slots": slots,
            "ttl": settings.REDRIVE.worker_ttl,
        }
        self._in_flight = in_flight
        self._stopping = False
        self._bell, self._ear = socket.socketpair()
        self._pause = FIRST_RETRY
        self._watchdog = Watchdog(turned, patience=settings.REDRIVE.worker_ttl)
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None
        self._thread = threading.Thread(target=self._run, name="redrive-presence", daemon=True)

    def stands(self) -> bool:
        """Whether nobody may take this worker for lost yet."""
        return time.monotonic() < self._stands_until

    def start(self) -> None:
        """Begin; `registered` is set once the presence stands."""
        self._thread.start()

    def stop(self) -> None:
        """Take the leave: the row goes, the lock with it."""
        self._stopping = True
        self._bell.send(b"!")
        self._thread.join(settings.REDRIVE.worker_ttl)

    def _run(self) -> None:
        while not self._stopping:
            renewal = settings.REDRIVE.worker_ttl / RENEWALS
            if self._watchdog.is_stuck():
                log.error("worker_stuck", seconds=settings.REDRIVE.worker_ttl)
                os._exit(EXIT_STUCK)
            try:
                self._beat()
                wait, self._pause = renewal, FIRST_RETRY
            except Exception as error:  # whatever it is, the next beat may succeed
                log.warning("presence_not_renewed", error=type(error).__name__)
                self._disconnect()
                wait, self._pause = self._pause, min(2 * self._pause, renewal)
            self._rest(wait)
        self._leave()

    def _rest(self, seconds: float) -> None:
        """Until the time is over, `stop` is called, or Postgres has something to say, which is that it goes."""
        poll = select.poll()
        poll.register(self._ear, select.POLLIN)
        if self._connection is not None:
            poll.register(self._connection, select.POLLIN)
        poll.poll(seconds * 1000)

    def _beat(self) -> None:
        failpoints.hit("presence.renew")
        began = time.monotonic()
        if self._connection is None:
            self._connect()
        assert self._connection is not None
        if not self._has_lock:
            # An earlier session of ours may still hold it on the server: then the expiry alone speaks for us.
            row = self._connection.execute(
                "SELECT pg_try_advisory_lock(%s, %s)", [LOCK_CLASS, self._lock_key]
            ).fetchone()
            self._has_lock = bool(row and row[0])
        lock = self._lock_key if self._has_lock else None
        self._connection.execute(_BEAT, {**self._values, "lock": lock, "in_flight": self._in_flight()})
        self._stands_until = began + settings.REDRIVE.worker_ttl * STANDS
        self.registered.set()

    def _connect(self) -> None:
        timeout = int(settings.REDRIVE.worker_ttl * 500)
        self._connection = psycopg.connect(
            **{name: value for name, value in connection.get_connection_params().items() if name not in NOT_TAKEN},
            autocommit=True,
            connect_timeout=2,
            application_name="redrive-presence",
            tcp_user_timeout=timeout,
            options=f"-c statement_timeout={timeout}",
        )

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._has_lock = False

    def _leave(self) -> None:
        try:
            if self._connection is not None:
                self._connection.execute("DELETE FROM tasks_workerpresence WHERE id = %s", [self.worker])
        except psycopg.Error:
            pass  # it expires
        finally:
            self._disconnect()
            self._bell.close()
            self._ear.close()


class Watchdog:
    """Tells a loop that does not turn from a process that was frozen as a whole. turned: when it last turned.

    Time in which the watchdog itself was not asked does not count. Ask it more often than once a second or so.
    """

    def __init__(self, turned: Callable[[], float], *, patience: float) -> None:
        self._turned = turned
        self._patience = patience
        self._seen = turned()
        self._asked = time.monotonic()
        self._still = 0.0

    def is_stuck(self) -> bool:
        """Whether the loop has stood still for `patience` seconds."""
        now, turned = time.monotonic(), self._turned()
        self._still = 0.0 if turned != self._seen else self._still + min(now - self._asked, self._patience / 3)
        self._seen, self._asked = turned, now
        return self._still > self._patience
