"""Failpoints: armed they do what their text says, otherwise nothing; a wrong text stops the start."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from apps.core import failpoints
from apps.core.conf import ROOT

POINT = "finish.before_commit"


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


def run(text: str, enabled: str = "true", code: str = "") -> "subprocess.CompletedProcess[str]":
    """A process of Redrive's own with these failpoints, in which `code` runs after the start."""
    environment = {**os.environ, "REDRIVE_FAILPOINTS": text, "REDRIVE_FAILPOINTS_ENABLED": enabled}
    command = [sys.executable, "manage.py", "shell", "-v0", "-c", code or "print('started')"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_one_that_is_not_armed_does_nothing() -> None:
    failpoints.arm("doorbell.send:raise")
    failpoints.hit(POINT)


def test_it_raises_as_often_as_it_says() -> None:
    failpoints.arm(f"{POINT}:raise*2")
    for _ in range(2):
        with pytest.raises(failpoints.FailpointHit):
            failpoints.hit(POINT)
    failpoints.hit(POINT)


def test_it_sleeps() -> None:
    failpoints.arm(f"{POINT}:sleep=0.05")
    began = time.monotonic()
    failpoints.hit(POINT)
    assert time.monotonic() - began >= 0.05


def test_it_waits_for_a_file_and_says_that_it_has_come_there(tmp_path: Path) -> None:
    failpoints.arm(f"{POINT}:pause={tmp_path}/go")
    thread = threading.Thread(target=failpoints.hit, args=[POINT], daemon=True)
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    assert (tmp_path / "go.reached").exists()
    (tmp_path / "go").touch()
    thread.join(10)
    assert not thread.is_alive()


def test_it_ends_the_process_at_once() -> None:
    code = f"from apps.core import failpoints; failpoints.hit('{POINT}'); print('beyond')"
    done = run(f"{POINT}:exit", code=code)
    assert (done.returncode, done.stdout) == (failpoints.EXIT_CODE, "")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("finish.before_comit:exit", "did you mean 'finish.before_commit'"),
        ("qqqq:exit", "there are: .*finish.before_commit"),
        (f"{POINT}:exti", "did you mean 'exit'"),
        (f"{POINT}:sleep", "'sleep' takes seconds"),
        (f"{POINT}:sleep=soon", "soon"),
        (f"{POINT}:exit=1", "'exit' takes nothing"),
        (f"{POINT}", "does not look like name:action"),
        (f"{POINT}:exit*", "does not look like"),
    ],
)
def test_a_wrong_text_is_refused_with_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        failpoints.arm(text)


def test_a_wrong_name_stops_the_start() -> None:
    done = run("finish.before_comit:exit")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'finish.before_commit'" in done.stderr


@pytest.mark.parametrize("text", [f"{POINT}:exit", "nonsense"])
def test_a_variable_left_behind_is_ignored_and_said(text: str) -> None:
    done = run(text, enabled="", code=f"from apps.core import failpoints; failpoints.hit('{POINT}'); print('beyond')")
    assert (done.returncode, done.stdout) == (0, "beyond\n")
    assert "failpoints_ignored" in done.stderr


def test_each_name_is_at_one_place_of_the_code() -> None:
    code = "".join(path.read_text() for path in (ROOT / "apps").rglob("*.py") if path.name != "failpoints.py")
    assert sorted(re.findall(r'failpoints\.hit\("([^"]+)"\)', code)) == sorted(failpoints.NAMES)
