"""Keeps retries from multiplying an outage: at most 10 % of an upstream's recent traffic, never less than three."""

import time
from collections import deque

SHARE = 0.1
WINDOW = 10.0  # seconds of traffic that count
LEAST = 3  # retries in flight that are always allowed


class RetryBudget:
    """Of one upstream in this process. A try at the next upstream is no retry: the failing one gets no more by it."""

    def __init__(self) -> None:
        self._calls: deque[list[float]] = deque()  # [second, calls in it]
        self._in_flight = 0

    def note_call(self) -> None:
        """Count one call towards the traffic."""
        second = float(int(time.monotonic()))
        if self._calls and self._calls[-1][0] == second:
            self._calls[-1][1] += 1
        else:
            self._calls.append([second, 1])
            self._forget(second)

    def take(self) -> bool:
        """Whether one more retry may start; it ends with `give_back`."""
        self._forget(time.monotonic())
        if self._in_flight >= max(LEAST, SHARE * sum(calls for _, calls in self._calls)):
            return False
        self._in_flight += 1
        return True

    def give_back(self) -> None:
        """A retry has ended."""
        self._in_flight -= 1

    def _forget(self, now: float) -> None:
        while self._calls and self._calls[0][0] < now - WINDOW:
            self._calls.popleft()
