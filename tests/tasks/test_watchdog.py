"""The watchdog knows a loop that stands still from a process that was frozen as a whole."""

import time

from apps.tasks.presence import Watchdog
from tests.time import stay


def test_a_loop_that_stands_still_is_stuck_after_its_time() -> None:
    watchdog = Watchdog(lambda: 1.0, patience=0.05)
    assert not watchdog.is_stuck()
    asked = [watchdog.is_stuck() for _ in range(20) if stay(0.005) is None]
    assert asked[-1]
    assert not asked[0]


def test_a_loop_that_turns_is_never_stuck() -> None:
    watchdog = Watchdog(time.monotonic, patience=0.02)
    assert not any(watchdog.is_stuck() for _ in range(20) if stay(0.005) is None)


def test_a_process_that_was_frozen_as_a_whole_is_not_stuck() -> None:
    watchdog = Watchdog(lambda: 1.0, patience=0.1)
    assert not watchdog.is_stuck()
    stay(0.3)  # nobody asked meanwhile
    assert not watchdog.is_stuck()
