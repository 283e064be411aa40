"""`manage.py worker`: runs tasks without Celery; it looks for due work each second, so Redis may be away."""

import argparse
import asyncio
import signal
from typing import Any

import uvloop
from django.core.management.base import BaseCommand

from apps.core import garbage, open_files
from apps.tasks import states
from apps.tasks.executor import Executor


class Command(BaseCommand):
    help = "Run tasks. Any number of workers may run, on any number of machines; Ctrl-C lets running attempts end."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """See --help."""
        parser.add_argument(
            "--queue", action="append", choices=states.QUEUES, metavar="NAME",
            help=f"serve this queue; may be given several times. Of {', '.join(states.QUEUES)}. "
            "Default: all but quarantine, which must be served alone",
        )  # fmt: skip
        parser.add_argument("--slots", type=int, help="attempts at once (REDRIVE_WORKER_SLOTS)")

    def handle(self, *args: Any, **options: Any) -> None:
        """Work until SIGTERM or SIGINT."""
        queues = options["queue"] or states.TOGETHER
        garbage.settle()
        open_files.allow_all()
        uvloop.run(_work(Executor(list(dict.fromkeys(queues)), slots=options["slots"])))


async def _work(executor: Executor) -> None:
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, executor.stop)
    await executor.run()
