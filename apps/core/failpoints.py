"""Failpoints: named places where a process can be made to die, fail or wait. They do nothing unless they are armed.

    REDRIVE_FAILPOINTS_ENABLED=true REDRIVE_FAILPOINTS='enqueue.after_commit:exit,finish.before_commit:raise*2'

For tests and drills. Both settings are needed, so that a variable left behind in an environment hurts nobody; a name
or an action that does not exist stops the start. Actions: `exit` (at once, code 86), `raise`, `hang`, `sleep=SECONDS`,
`pause=FILE` (makes FILE.reached, goes on once FILE exists); with `*N` only the first N times.
"""

import difflib
import os
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path

NAMES = {
    "bulk.after_release": "letters of a bulk operation are decided, its items are not marked",
    "bulk.after_freeze": "letters of a bulk operation are frozen, and not counted",
    "claim.after_commit": "a worker has taken tasks, and does not know it yet",
    "doorbell.send": "a ring is about to be sent",
    "enqueue.after_commit": "tasks are accepted, nobody has been told or rung",
    "enqueue.before_commit": "tasks are inserted, and not committed",
    "finish.after_commit": "ends of attempts are committed, the worker does not know it yet",
    "finish.before_commit": "ends of attempts are written, and not committed",
    "intake.before_letters": "tasks are dying, their letters are not written",
    "presence.renew": "a worker is about to renew its sign of life",
    "reap.midway": "tasks are taken from a lost worker, their attempts are not written",
    "redrive.before_revive": "letters are redriven, their tasks are not yet back at work",
}
"""Every failpoint with where it is; `hit` is called with each name at one place of the code."""

EXIT_CODE = 86
_TEXT = re.compile(r"(?P<name>[a-z_.]+):(?P<action>[a-z]+)(?:=(?P<argument>[^*,]+))?(?:\*(?P<times>\d{1,6}))?")
_ARGUMENTS = {"exit": None, "raise": None, "hang": None, "sleep": "seconds", "pause": "a file"}


class FailpointHit(Exception):
    """What `raise` raises."""


@dataclass(slots=True)
class _Action:
    name: str
    argument: str
    left: float

    def act(self, point: str) -> None:
        if self.name == "exit":
            os._exit(EXIT_CODE)
        if self.name == "raise":
            raise FailpointHit(point)
        if self.name == "hang":
            threading.Event().wait()
        if self.name == "sleep":
            time.sleep(float(self.argument))
        if self.name == "pause":
            Path(f"{self.argument}.reached").touch()
            while not Path(self.argument).exists():
                time.sleep(0.005)


_armed: dict[str, _Action] = {}
_lock = threading.Lock()


def hit(name: str) -> None:
    """The code has come to this point."""
    if _armed:
        _hit(name)


def arm(text: str) -> None:
    """Arm the failpoints of a text like that above, and no others. Raises ValueError."""
    found = parse(text)
    with _lock:
        _armed.clear()
        _armed.update(found)


def parse(text: str) -> dict[str, _Action]:
    """The actions of a text by name. Raises ValueError that says what is wrong."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _TEXT.fullmatch(part)
        if match is None:
            raise ValueError(f"{part!r} does not look like name:action, name:action=argument or name:action*times")
        name, action, argument = match["name"], match["action"], match["argument"] or ""
        if name not in NAMES:
            raise ValueError(f"there is no failpoint {name!r}{_like(name, NAMES)}")
        if action not in _ARGUMENTS:
            raise ValueError(f"there is no action {action!r}{_like(action, _ARGUMENTS)}")
        if bool(argument) != bool(_ARGUMENTS[action]):
            raise ValueError(f"{action!r} takes {_ARGUMENTS[action] or 'nothing'} after a '='")
        if action == "sleep":
            float(argument)
        found[name] = _Action(action, argument, float(match["times"] or "inf"))
    return found


def _hit(name: str) -> None:
    with _lock:
        action = _armed.get(name)
        if action is None or action.left <= 0:
            return
        action.left -= 1
    action.act(name)


def _like(word: str, known: dict[str, str] | dict[str, str | None]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f", did you mean {close[0]!r}?" if close else f"; there are: {', '.join(sorted(known))}"
