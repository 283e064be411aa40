"""The web server: Granian with one worker, which takes its leave gracefully and never outlives its parent.

Run as a module it is the server; imported it is the catalogue's entry for it.
"""

import argparse
import importlib
import os
import signal
import sys
from functools import partial
from typing import Any

from apps.core.embedded.lifeline import hold_on
from apps.core.embedded.probes import http_status
from apps.core.embedded.service import Launch, Run, Service

NAME = "web"
APPLICATION = "config.asgi:application"
KILL_SECONDS = 10


async def launch(run: Run) -> Launch:
    """Says how to start the web server."""
    arguments = ("--host", run.host, "--port", str(run.ports[NAME]))
    return Launch((sys.executable, "-m", "apps.core.embedded.web", *arguments), run.environment())


async def is_ready(run: Run) -> bool:
    """Whether the application says that it can serve."""
    return await http_status(run.web_host, run.ports[NAME], "/readyz") == 200


SERVICE = Service(
    name=NAME,
    launch=launch,
    is_ready=is_ready,
    after=("postgres", "valkey", "prepare"),
    stop_seconds=KILL_SECONDS + 5,
)


def serve(host: str, port: int) -> None:
    """Serves the application until SIGTERM or SIGINT, then lets running requests end for up to KILL_SECONDS."""
    from granian import Granian
    from granian.constants import Interfaces, Loops
    from granian.log import LogLevels

    server = Granian(
        APPLICATION,
        address=host,
        port=port,
        interface=Interfaces.ASGI,  # with lifespan: its end writes what the ledger still holds
        loop=Loops.uvloop,
        workers=1,
        backlog=2048,
        log_level=LogLevels.warning,
        respawn_failed_workers=True,
        workers_kill_timeout=KILL_SECONDS,
    )
    server.serve(target_loader=partial(_load, os.getpid()), wrap_loader=False)


def _load(parent: int) -> Any:
    """Runs in the worker before anything of the application."""
    hold_on(signal.SIGKILL, parent)  # Granian's workers do not notice that Granian was killed
    for number in (signal.SIGTERM, signal.SIGINT):  # nor, while they load, that it wants them to stop
        signal.signal(number, signal.SIG_DFL)
    module, name = APPLICATION.split(":")
    return getattr(importlib.import_module(module), name)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m apps.core.embedded.web", description="Redrive's web server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    serve(arguments.host, arguments.port)


if __name__ == "__main__":
    main()
