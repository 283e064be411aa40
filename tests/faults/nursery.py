"""Processes of Redrive that are born with everything imported: a worker starts in a tenth of its usual time.

They are forked from a server process of `multiprocessing` that holds nothing but imports, know kinds of tasks that do
harm, and are otherwise `manage.py <command>` with an environment of their own.
"""

import asyncio
import multiprocessing
import os
import random
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import django
from pydantic import BaseModel

django.setup()

from django.conf import settings  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connections  # noqa: E402

from apps.core import conf, failpoints  # noqa: E402
from apps.core.embedded.lifeline import hold_on  # noqa: E402
from apps.tasks import executor, kinds  # noqa: E402, F401 (executor: to have it imported)
from config import settings as settings_module  # noqa: E402

Handler = Callable[[Any, Any], Awaitable[dict[str, Any]]]
_births = multiprocessing.get_context("forkserver")


class Anything(BaseModel, extra="allow"):
    """Any arguments."""


async def abort(run: Any, args: Anything) -> dict[str, Any]:
    """Ends the process, whenever it runs."""
    os.abort()


async def loop_once(run: Any, args: Anything) -> dict[str, Any]:
    """Holds the loop for ever at its first attempt."""
    while run.task.attempt == 1:
        pass
    return {}


async def devour(run: Any, args: Anything) -> dict[str, Any]:
    """Wants more memory than there is."""
    return {"size": len(bytearray(1 << 60))}


async def leave(run: Any, args: Anything) -> dict[str, Any]:
    """Wants the process to end."""
    sys.exit(3)


async def cancel_itself(run: Any, args: Anything) -> dict[str, Any]:
    """Raises what only a cancel should."""
    raise asyncio.CancelledError


ODD: dict[str, Handler] = {each.__name__: each for each in (abort, loop_once, devour, leave, cancel_itself)}


def open_nursery(environment: Mapping[str, str]) -> None:
    """Start the server; what it imports sees this environment."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        _births.set_forkserver_preload(["pytest", __name__])
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


def close_nursery() -> None:
    """End the server, so that another may be started with another environment."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


class Born:
    """One process, running `manage.py <command>`."""

    def __init__(self, environment: Mapping[str, str], *command: str) -> None:
        self.log = Path(tempfile.mkstemp(prefix=f"redrive-{command[0]}-", suffix=".log")[1])
        self._process = _births.Process(target=_live, args=(dict(environment), command, str(self.log)), daemon=True)
        self._process.start()
        self.pid = self._process.pid or 0

    @property
    def lives(self) -> bool:
        """Whether it runs, or is frozen."""
        return self._process.is_alive()

    def send(self, sign: signal.Signals) -> None:
        """A signal."""
        os.kill(self.pid, sign)

    def end(self, sign: signal.Signals | None = signal.SIGTERM, within: float = 20.0) -> int:
        """Its exit code, after a signal, or (None) when it ends by itself."""
        if self.lives and sign is not None:
            self.send(sign)
        self._process.join(within)
        code = self._process.exitcode
        assert code is not None, self.log.read_text()
        return code


def _live(environment: dict[str, str], command: tuple[str, ...], log: str) -> None:
    hold_on(signal.SIGKILL, os.getppid())
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ.update(environment)
    settings.REDRIVE = settings_module.REDRIVE = conf.load()
    connections.settings["default"].update(settings_module.postgres(settings.REDRIVE.database_url))
    failpoints.arm(settings.REDRIVE.failpoints)
    random.seed()
    for name, handler in ODD.items():
        kinds.register(kinds.Kind(name, Anything, handler, policy=kinds.Policy(base=0.1, cap=0.1)))
    call_command(*command)
