"""Celery's way in: a step of its worker that runs the executor, and the task that a ring is.

The executor has a thread and a loop of its own beside Celery's pool, which does chores; a ring costs it one
call_soon_threadsafe. See docs.celeryq.dev, "Extensions and Bootsteps".
"""

import os
import signal
import threading
from collections.abc import Sequence
from typing import Any

import structlog
import uvloop
from celery import bootsteps, current_app, shared_task
from django.conf import settings

from apps.core import garbage, open_files
from apps.tasks import states
from apps.tasks.doorbell import WAKE
from apps.tasks.executor import Executor

log = structlog.get_logger(__name__)

_running: list[Executor] = []


@shared_task(name=WAKE, ignore_result=True)
def wake(queues: Sequence[str]) -> None:
    """A ring: there is due work in these queues."""
    for executor in _running:
        executor.wake(queues)


class ExecutorStep(bootsteps.StartStopStep):
    """Starts the executor with the worker, and lets it hand back its work when the worker stops."""

    requires = {"celery.worker.components:Pool"}

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self.executor: Executor | None = None
        self.thread: threading.Thread | None = None

    def start(self, parent: Any) -> None:
        """See bootsteps."""
        garbage.settle()
        open_files.allow_all()
        self.executor = executor = Executor(states.TOGETHER)
        self.thread = threading.Thread(target=self._run, args=[executor], name="redrive-executor", daemon=True)
        self.thread.start()
        _running.append(executor)

    def _run(self, executor: Executor) -> None:
        try:
            uvloop.run(executor.run())
        except Exception as error:
            log.error("executor_failed", exc_info=error)
        if executor in _running:  # nobody asked it to stop: a worker without it would take rings for nothing
            os.kill(os.getpid(), signal.SIGTERM)

    def stop(self, parent: Any) -> None:
        """See bootsteps."""
        if self.executor is None or self.thread is None:
            return
        _running.remove(self.executor)
        self.executor.stop()
        self.thread.join(settings.REDRIVE.worker_grace + 25)
        self.executor = None

    terminate = stop


current_app.steps["worker"].add(ExecutorStep)
