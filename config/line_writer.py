"""Writes log lines in groups: a write for each line of each request costs more than making the line.

Lines wait 0.1 s at most, which is what a kill -9 loses of the log; warnings and errors are written at once, and
what waits is written when the process ends.
"""

import atexit
import contextlib
import threading
import time
from collections import deque
from typing import BinaryIO

GATHER = 0.1  # seconds


class LineWriter:
    """One stream; its `logger` is structlog's logger factory."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lines: deque[bytes] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        atexit.register(self.flush)

    def logger(self, *_: object) -> "_Logger":
        """A logger that writes here."""
        return _Logger(self)

    def gather(self, line: bytes) -> None:
        """Write a line soon."""
        self._lines.append(line)
        if not self._wake.is_set():
            self._wake.set()
            if self._thread is None:
                self._start()

    def write(self, line: bytes) -> None:
        """Write a line, and what waits before it, now."""
        self._lines.append(line)
        self.flush()

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            # A log that nobody reads any more must not end what it speaks of.
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(b"".join(line + b"\n" for line in lines))
                self._stream.flush()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="redrive-log", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            time.sleep(GATHER)
            self._wake.clear()
            self.flush()


class _Logger:
    """The methods that structlog calls, by the level's name."""

    def __init__(self, writer: LineWriter) -> None:
        self.debug = self.info = writer.gather
        self.warning = self.warn = self.error = self.exception = self.critical = self.fatal = writer.write
        self.msg = self.log = writer.write
