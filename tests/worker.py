"""A real worker, or clock, as a child process on the test database of this process."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.gateway import ROOT


class Child:
    """`manage.py <command>` in its own process."""

    def __init__(self, environment: Mapping[str, str], *command: str) -> None:
        self.log = Path(tempfile.mkstemp(prefix=f"redrive-{command[0]}-", suffix=".log")[1])
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", *command],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self, sign: int = signal.SIGTERM) -> None:
        """Stop it and wait."""
        if self.process.poll() is None:
            self.process.send_signal(sign)
            self.process.wait(20)
