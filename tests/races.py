"""Starts the same work in many threads at the same moment, and tells when one waits for another."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import connection, connections

R = TypeVar("R")


def together(threads: int, work: Callable[[int], R]) -> list[R | Exception]:
    """`work(0)` to `work(threads - 1)` side by side, released by one barrier; what each returned or raised."""
    barrier = threading.Barrier(threads)

    def one(number: int) -> R | Exception:
        try:
            barrier.wait(10)
            return work(number)
        except Exception as error:
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(threads)))


def wait_for_a_waiting_session() -> None:
    """Return once a session of this database waits for a lock."""
    tick = threading.Event()
    for _ in range(500):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if cursor.fetchone()[0]:
                return
        tick.wait(0.01)
    raise AssertionError("nobody waits")
