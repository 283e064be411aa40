"""Celery's worker: rings that come twice and late change nothing, and its broker's death costs no task."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from apps.core.embedded.lifeline import lifeline
from apps.core.embedded.tasks import CELERY
from apps.tasks.doorbell import RINGS, WAKE
from tests.faults.crew import QUICK, Crew, accept
from tests.faults.stores import ROOT, Set, Stores
from tests.journeys.conftest import Client
from tests.journeys.wire import eventually
from tests.upstream import Upstream

StartCelery = Callable[[], "subprocess.Popen[bytes]"]
RING = f"from celery import current_app as app; [app.send_task({WAKE!r}, args=[['default']], queue={RINGS!r})"


@pytest.fixture
def celery(stores: Stores, crew: Crew, tmp_path: Path) -> Iterator[StartCelery]:
    """Start Celery's worker, as `up` does, and wait until it is there."""
    started: list[subprocess.Popen[bytes]] = []
    options = ("--pool", "threads", "--concurrency", "2", "--queues", "chores,rings", "--loglevel", "WARNING")

    def start() -> "subprocess.Popen[bytes]":
        with (tmp_path / "celery.log").open("ab") as log:
            process = subprocess.Popen(
                [*CELERY, "worker", *options, "--without-gossip", "--without-mingle"],
                cwd=ROOT,
                env={**os.environ, **stores.environment, **QUICK},
                stdout=log,
                stderr=log,
                preexec_fn=lifeline(signal.SIGKILL),
            )
        started.append(process)
        present = "SELECT 1 FROM tasks_workerpresence WHERE pid = %s"
        assert eventually(lambda: stores.query(present, process.pid), within=40), (tmp_path / "celery.log").read_text()
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.wait(60)


def ring(stores: Stores, times: int) -> None:
    """Send so many rings at once."""
    command = [sys.executable, "manage.py", "shell", "-v0", "-c", f"{RING} for _ in range({times})]"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **stores.environment}, check=True, timeout=60)


def test_rings_that_come_twice_and_late_change_nothing(
    crew: Crew, stores: Stores, plain: Client, mine: Set, upstream: Upstream, celery: StartCelery
) -> None:
    before = len(upstream.requests(mine.model))
    ring(stores, 50)  # for nothing, and for what comes later
    tasks = accept(plain, mine.model, 10)
    celery()
    crew.until(tasks, "succeeded")
    ring(stores, 50)
    tasks += accept(plain, mine.model, 10)
    assert set(crew.until(tasks, "succeeded").values()) == {("succeeded", 1, 0, 0)}
    assert len(upstream.requests(mine.model)) - before == 20
    with Redis.from_url(stores.run.redis_url) as client:
        assert eventually(lambda: client.llen(RINGS) == 0, within=10)


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_without_its_broker_it_works_on_or_ends_and_is_replaced(
    crew: Crew, stores: Stores, plain: Client, mine: Set, celery: StartCelery, how: str
) -> None:
    worker = celery()
    tasks = accept(plain, mine.model, 10)
    crew.until(tasks, "succeeded")
    with stores.redis.away(how):
        tasks = accept(plain, mine.model, 10)
        eventually(lambda: crew.states(tasks)["succeeded"] == 10 or worker.poll() is not None, within=10)
    # It may end without its broker, and `up` starts it again; what it may not do is live and claim nothing.
    if worker.poll() is not None:
        celery()
    crew.until(tasks, "succeeded")
    tasks = accept(plain, mine.model, 10)
    assert all(row[3] == 0 for row in crew.until(tasks, "succeeded").values())
