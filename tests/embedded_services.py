"""A pytest plugin: real Postgres and Valkey for the whole run, started by `manage.py up`, stopped at its end.

Where REDRIVE_DATABASE_URL and REDRIVE_REDIS_URL are set, those are used instead. With pytest-xdist the controller
starts them once; each worker has its own database (pytest-django) and its own Redis database.
"""

import atexit
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from cryptography.fernet import Fernet

from apps.core.embedded.lifeline import lifeline

ROOT = Path(__file__).resolve().parent.parent
DEADLINE = 60.0  # seconds for the services to start


def _start() -> None:
    folder = Path(tempfile.mkdtemp(prefix="redrive-tests-"))
    folder.chmod(0o711)  # as root, Postgres runs as nobody, who must reach its data
    command = [sys.executable, "manage.py", "up", "--only", "postgres,valkey", "--data-dir", str(folder / "data")]
    with (folder / "up.out").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, preexec_fn=lifeline(signal.SIGTERM)
        )
    atexit.register(_stop, process, folder)
    state_file = folder / "data" / "up.json"
    tick = threading.Event()
    for _ in range(int(DEADLINE / 0.1)):
        state = json.loads(state_file.read_text()) if state_file.exists() else {}
        if {"postgres", "valkey"} <= state.get("pids", {}).keys():
            os.environ["REDRIVE_DATABASE_URL"] = state["database_url"]
            os.environ["REDRIVE_REDIS_URL"] = state["redis_url"]
            return
        if process.poll() is not None:
            break
        tick.wait(0.1)
    raise RuntimeError(f"the services did not start:\n{(folder / 'up.out').read_text()}")


def _stop(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def _prepare_environment() -> None:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if not worker:
        os.environ.setdefault("REDRIVE_DATA_DIR", tempfile.mkdtemp(prefix="redrive-tests-none-"))
        os.environ.setdefault("REDRIVE_ENCRYPTION_KEYS", Fernet.generate_key().decode())
        os.environ.setdefault("REDRIVE_SECRET_KEY", "a key for tests only, never used elsewhere")
        if not (os.environ.get("REDRIVE_DATABASE_URL") and os.environ.get("REDRIVE_REDIS_URL")):
            _start()
    number = int(re.sub(r"\D", "", worker) or 0) + 1
    os.environ["REDRIVE_REDIS_URL"] = re.sub(r"/\d*$", "", os.environ["REDRIVE_REDIS_URL"]) + f"/{number}"


_prepare_environment()
