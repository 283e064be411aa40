"""`manage.py up` for real, with the databases only: starts, answers, is killed without a trace, starts again."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

ROOT = Path(__file__).resolve().parents[3]
DEADLINE = 60.0


@pytest.fixture
def data_dir():
    # Not tmp_path: PostgreSQL's user must be able to pass, or root's data would go to the system's state folder.
    folder = Path(tempfile.mkdtemp(prefix="redrive-up-"))
    folder.chmod(0o711)
    yield folder / "data"
    shutil.rmtree(folder, ignore_errors=True)


class Up:
    """One `manage.py up --only postgres,valkey` as a child of the test."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        self.output = data_dir.with_name("output")
        self.state_file = data_dir / "up.json"
        command = [
            sys.executable,
            "manage.py",
            "up",
            "--data-dir",
            str(data_dir),
            "--only",
            "postgres,valkey",
            *options,
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("REDRIVE_")}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def state(self):
        """up.json of this very start."""
        tick = threading.Event()
        for _ in range(int(DEADLINE / 0.05)):
            if self.process.poll() is not None:
                break
            if self.state_file.exists():
                state = json.loads(self.state_file.read_text())
                if state["pids"]["supervisor"] == self.process.pid:
                    return state
            tick.wait(0.05)
        raise AssertionError(f"up did not get ready:\n{self.output.read_text()}")

    def family(self):
        return psutil.Process(self.process.pid).children(recursive=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE)


def all_end(family):
    """Whether every process has ended within the deadline; those nobody has waited for yet count as ended."""
    tick = threading.Event()
    for _ in range(int(DEADLINE / 0.02)):
        if not [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]:
            return True
        tick.wait(0.02)
    return False


def answers_again(redis_url):
    """Whether a Valkey that was killed is there again, under its old address, within the deadline."""
    tick = threading.Event()
    for _ in range(int(DEADLINE / 0.05)):
        with redis.Redis.from_url(redis_url) as client, contextlib.suppress(redis.RedisError):
            return client.ping()
        tick.wait(0.05)
    return False


def test_killed_without_a_trace_and_started_again(data_dir):
    with Up(data_dir) as first:
        state = first.state()
        assert state["url"] == ""
        assert set(state["pids"]) == {"supervisor", "postgres", "valkey"}
        assert (data_dir / "up.json").stat().st_mode & 0o777 == 0o600
        with psycopg.connect(state["database_url"]) as connection:
            connection.execute("CREATE TABLE kept (word text)")
            connection.execute("INSERT INTO kept VALUES ('here')")
        with redis.Redis.from_url(state["redis_url"]) as client:
            assert client.ping()
        family = first.family()
        names = " ".join(" ".join(each.cmdline()) for each in family)
        assert state["database_url"].split(":")[2].split("@")[0] not in names
        assert len(family) > 5  # PostgreSQL's own children are in it
        first.process.kill()
        first.process.wait(DEADLINE)
        assert all_end(family)

    with Up(data_dir) as second:
        state = second.state()
        with psycopg.connect(state["database_url"]) as connection:
            assert connection.execute("SELECT word FROM kept").fetchall() == [("here",)]
        psutil.Process(state["pids"]["valkey"]).kill()
        assert answers_again(state["redis_url"])
        refused = subprocess.run(
            [sys.executable, "manage.py", "up", "--data-dir", str(data_dir)], cwd=ROOT, capture_output=True, text=True
        )
        assert refused.returncode == 2
        assert f"running already with the data folder {data_dir}" in refused.stderr
        family = second.family()
        second.process.send_signal(signal.SIGINT)
        assert second.process.wait(DEADLINE) == 0
        assert all_end(family)
    assert not (data_dir / "up.json").exists()


def test_a_wrong_name_is_refused_before_anything_starts(data_dir):
    with Up(data_dir, "--only", "postgress") as up:
        assert up.process.wait(DEADLINE) == 2
    assert "Did you mean postgres?" in up.output.read_text()
    assert not (data_dir / "postgres").exists()
