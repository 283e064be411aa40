"""The real gateway as a child process (uvicorn), on the test database of this worker or on services of its own."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from apps.core.embedded.web import APPLICATION, OPTIONS

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    """A port of the loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Gateway:
    """`manage.py`'s application in its own process. url: http://127.0.0.1:port."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = Path(tempfile.mkstemp(prefix="redrive-gateway-", suffix=".log")[1])
        address = ["--host", "127.0.0.1", "--port", str(self.port)]
        command = [sys.executable, "-m", "uvicorn", APPLICATION, *address, *OPTIONS]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait()

    def _wait(self) -> None:
        tick = threading.Event()
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{self.url}/livez", timeout=1).read()
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                assert self.process.poll() is None, self.log.read_text()
                tick.wait(0.1)
        raise AssertionError(f"the gateway did not start:\n{self.log.read_text()}")

    def stop(self, sign: int = signal.SIGTERM) -> None:
        """Stop it and wait; with SIGKILL at once, with its worker."""
        if self.process.poll() is None:
            if sign == signal.SIGKILL:
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.send_signal(sign)
            self.process.wait(20)
