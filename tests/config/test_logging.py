"""The log, as another process writes it: one JSON line an event, without secrets, prompts or local variables."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
WRITER = """
import logging, structlog
from config.logging import configure_logging
configure_logging(level="INFO", format="json")
from apps.core import request_context
from apps.core.request_context import RequestContext

log = structlog.get_logger("ours")
log.info("outside")
context = RequestContext("req_mine")
context.log_fields["key"] = "rd_abc"
request_context.enter(context)
log.info("inside", model="m", key="its own")
log.info("learned")
log.debug("too quiet")
log.warning("forbidden", authorization="SECRET-1", api_key="SECRET-2", messages=["SECRET-3"], prompt="SECRET-4",
            content="SECRET-5", input="SECRET-6", body="SECRET-7", password="SECRET-8", token="SECRET-9", fine=1)

def fail():
    prompt = "SECRET-local"
    raise ValueError("boom")

try:
    fail()
except ValueError as error:
    log.error("caught", exc_info=error)
    log.error("caught by flag", exc_info=True)
    logging.getLogger("theirs").exception("of the standard library %s", "formatted")
logging.getLogger("theirs").info("plain")
log.info("odd", surrogate="\\ud83d", huge=10**40, thing=object(), nan=float("nan"), keys={1: 2}, raw=b"\\xff")
log.info("\\ud83d")
log.info("last")
"""


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    """What the writer wrote, line by line."""
    done = subprocess.run(
        [sys.executable, "-c", WRITER], cwd=ROOT, env=dict(os.environ), capture_output=True, timeout=30, check=False
    )
    assert done.stdout == b""
    return [json.loads(line) for line in done.stderr.splitlines() if line.startswith(b"{")]


def line(lines: list[dict[str, Any]], event: str) -> dict[str, Any]:
    """The line of an event."""
    (found,) = [one for one in lines if one["event"] == event]
    return found


def test_a_line_says_what_when_and_how_bad(lines: list[dict[str, Any]]) -> None:
    found = line(lines, "outside")
    assert set(found) == {"event", "level", "timestamp"}
    assert found["level"] == "info"
    assert found["timestamp"].endswith("Z")


def test_a_line_within_a_request_has_its_id_its_time_and_what_it_learned(lines: list[dict[str, Any]]) -> None:
    found = line(lines, "learned")
    assert (found["request_id"], found["key"]) == ("req_mine", "rd_abc")
    assert found["elapsed_ms"] >= 0


def test_what_the_event_says_itself_goes_first(lines: list[dict[str, Any]]) -> None:
    assert line(lines, "inside")["key"] == "its own"


def test_quiet_events_are_left_out(lines: list[dict[str, Any]]) -> None:
    assert not [one for one in lines if one["event"] == "too quiet"]


def test_secrets_and_prompts_are_removed(lines: list[dict[str, Any]]) -> None:
    found = line(lines, "forbidden")
    assert "SECRET" not in json.dumps(found)
    assert (found["api_key"], found["messages"], found["fine"]) == ("[removed]", "[removed]", 1)


@pytest.mark.parametrize("event", ["caught", "caught by flag", "of the standard library formatted"])
def test_a_traceback_has_frames_without_local_variables(lines: list[dict[str, Any]], event: str) -> None:
    found = json.dumps(line(lines, event))
    assert "ValueError" in found
    assert "boom" in found
    assert "fail" in found
    assert "SECRET-local" not in found


def test_the_standard_librarys_records_have_the_same_form(lines: list[dict[str, Any]]) -> None:
    found = line(lines, "plain")
    assert (found["logger"], found["level"], found["request_id"]) == ("theirs", "info", "req_mine")


def test_no_value_breaks_the_log(lines: list[dict[str, Any]]) -> None:
    assert line(lines, "odd")["request_id"] == "req_mine"
    assert lines[-1]["event"] == "last"
