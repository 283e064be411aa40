"""A child that carries a lifeline ends when its parent ends, even when the parent was killed with SIGKILL (Linux)."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
# Loaded here, in the parent: between fork and exec a child must not load libraries.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def lifeline(orphan_signal: signal.Signals) -> Callable[[], None]:
    """What a child runs between fork and exec: the kernel then sends it `orphan_signal` when its parent dies.

    The kernel watches the *thread* that forked, so children must be started from the main thread; and it forgets
    the wish when a process changes its user, so the user must have been changed before (subprocess does).
    """
    parent = os.getpid()

    def hold() -> None:
        hold_on(orphan_signal, parent)

    return hold


def hold_on(orphan_signal: signal.Signals, parent: int) -> None:
    """Sends this process `orphan_signal` when `parent` dies, at once if it is dead already. Does nothing on macOS."""
    if _libc is None:
        return
    _libc.prctl(PR_SET_PDEATHSIG, int(orphan_signal), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), orphan_signal)
