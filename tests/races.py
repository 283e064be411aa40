"""Starts the same work in many threads at the same moment."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import connections

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
