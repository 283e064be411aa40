"""Redrive, textbook Celery and procrastinate behind one face: send so many tasks, say when all are finished."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from bench import process, servers
from bench.tasks.stage import Stage

PATIENCE = 60.0  # seconds for a sender or a worker to start
REQUIREMENTS = Path(__file__).parent / "rivals" / "requirements.txt"


@dataclass
class Contender:
    """One way to do tasks. mark: a number before a round; finished: how many tasks have ended well since that mark.

    rows: what each task must have left behind, counted by these statements.
    """

    name: str
    about: str
    sender: "subprocess.Popen[str]"
    worker: Callable[[], int]
    database: "psycopg.Connection[tuple[Any, ...]]"
    mark: str
    finished: str
    rows: Mapping[str, str] = field(default_factory=dict)

    def ask(self, statement: str, mark: float = 0) -> float:
        """One number."""
        row = self.database.execute(statement, {"mark": mark}).fetchone()  # type: ignore[arg-type]
        return float(row[0]) if row and row[0] is not None else 0.0

    def send(self, count: int, model: str) -> None:
        """Begin to send; `sent` says what it took."""
        assert self.sender.stdin is not None
        self.sender.stdin.write(f"{count} {model}\n")
        self.sender.stdin.flush()

    def sent(self) -> dict[str, Any]:
        """Wait for the end of the sending."""
        assert self.sender.stdout is not None
        line = self.sender.stdout.readline()
        if not line:
            raise servers.StartError(f"{self.name}: its sender has ended, see its log")
        return dict(json.loads(line))


def start_sender(stack: ExitStack, stage: Stage, name: str, command: list[str], env: Mapping[str, str]) -> Any:
    """A sender that is ready."""
    log = stage.log(f"{name}-sender")
    log.parent.mkdir(parents=True, exist_ok=True)
    child = subprocess.Popen(
        command, cwd=process.REPOSITORY, env={**os.environ, **env}, text=True, start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log.open("w"),
    )  # fmt: skip
    stack.callback(process.stop, child)
    assert child.stdout is not None
    if not child.stdout.readline():
        raise servers.StartError(f"{name}: its sender did not start; the end of {log}:\n{process.tail(log)}")
    return child


def start_worker(stack: ExitStack, stage: Stage, name: str, command: list[str], env: Mapping[str, str]) -> int:
    """A worker's pid."""
    child = process.start(command, cpu=None, log=stage.log(f"{name}-worker"), env=env)
    stack.callback(process.stop, child)
    time.sleep(3)
    if child.poll() is not None:
        raise servers.StartError(f"{name}: its worker ended:\n{process.tail(stage.log(f'{name}-worker'))}")
    return child.pid


def connect(stack: ExitStack, url: str) -> "psycopg.Connection[tuple[Any, ...]]":
    return stack.enter_context(psycopg.connect(url, autocommit=True))


def redrive(stack: ExitStack, stage: Stage, python: Path) -> Contender:
    """The worker of `up`; tasks come by `enqueue.accept` with 64 callers, each with an Idempotency-Key."""
    data = {
        "REDRIVE_DATA_DIR": str(stage.folder / "data"),
        "BENCH_KEY_NAME": stage.key_name,
        "REDRIVE_LOG_LEVEL": "WARNING",
    }
    tables = ("tasks_taskpayload", "tasks_taskattempt", "tasks_taskresult", "completions_ledgerentry")
    return Contender(
        "redrive",
        "one worker, 500 slots",
        start_sender(stack, stage, "redrive", [sys.executable, "-m", "bench.tasks.redrive_sender"], data),
        lambda: stage.pid("worker"),
        connect(stack, stage.database_url),
        mark="SELECT extract(epoch FROM clock_timestamp())",
        finished="SELECT count(*) FROM tasks_task WHERE finished_at > to_timestamp(%(mark)s) AND state = 'succeeded'",
        rows={
            **{table: f"SELECT count(*) FROM {table}" for table in tables},
            "access_idempotencyrecord": "SELECT count(*) FROM access_idempotencyrecord",
            "succeeded tasks": "SELECT count(*) FROM tasks_task WHERE state = 'succeeded'",
        },
    )


def celery(stack: ExitStack, stage: Stage, python: Path, *, conn_max_age: int = 0) -> Contender:
    """Prefork with four processes, results by django-celery-results, all else as it comes."""
    url = stage.make_database("bench_celery")
    env = {
        "BENCH_DATABASE_URL": url,
        "BENCH_BROKER_URL": stage.broker_url(5),
        "BENCH_UPSTREAM": stage.upstream,
        "BENCH_CONN_MAX_AGE": str(conn_max_age),
        "DJANGO_SETTINGS_MODULE": "bench.tasks.rivals.celery_settings",
    }
    run = [str(python), "-m"]
    subprocess.run(
        [*run, "django", "migrate", "--verbosity", "0"], cwd=process.REPOSITORY, env={**os.environ, **env}, check=True
    )
    app = ["celery", "--app", "bench.tasks.rivals.celery_app"]
    subprocess.run([*run, *app, "purge", "-f"], cwd=process.REPOSITORY, env={**os.environ, **env}, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    worker = start_worker(stack, stage, "celery", [*run, *app, "worker", "-c", "4", "--loglevel", "WARNING"], env)
    return Contender(
        "celery",
        "prefork, 4 processes",
        start_sender(stack, stage, "celery", [*run, "bench.tasks.rivals.celery_app"], env),
        lambda: worker,
        connect(stack, url),
        mark="SELECT max(id) FROM django_celery_results_taskresult",
        finished="SELECT count(*) FROM django_celery_results_taskresult WHERE id > %(mark)s AND status = 'SUCCESS'",
        rows={"results": "SELECT count(*) FROM django_celery_results_taskresult WHERE status = 'SUCCESS'"},
    )


def procrastinate(
    stack: ExitStack, stage: Stage, python: Path, *, concurrency: int = 500, keep_answers: bool = True
) -> Contender:
    """Its async worker with so many jobs at once on uvloop, one aiohttp client; jobs deferred by 64 coroutines."""
    url = stage.make_database("bench_procrastinate")
    env = {
        "BENCH_DATABASE_URL": url,
        "BENCH_UPSTREAM": stage.upstream,
        "BENCH_KEEP_ANSWERS": str(int(keep_answers)),
    }
    run = [str(python), "-m"]
    app = ["procrastinate", "--app", "bench.tasks.rivals.procrastinate_app.app"]
    subprocess.run(
        [*run, *app, "schema", "--apply"], cwd=process.REPOSITORY, env={**os.environ, **env}, check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    database = connect(stack, url)
    database.execute("CREATE TABLE bench_answer (id bigserial PRIMARY KEY, body text NOT NULL)")
    module = [*run, "bench.tasks.rivals.procrastinate_app"]
    worker = start_worker(stack, stage, "procrastinate", [*module, "worker", str(concurrency)], env)
    answers = {"answers": "SELECT count(*) FROM bench_answer"} if keep_answers else {}
    return Contender(
        "procrastinate",
        f"one worker, {concurrency} at once",
        start_sender(stack, stage, "procrastinate", [*module, "send"], env),
        lambda: worker,
        database,
        mark="SELECT max(id) FROM procrastinate_jobs",
        finished="SELECT count(*) FROM procrastinate_jobs WHERE id > %(mark)s AND status = 'succeeded'",
        rows={"jobs": "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'", **answers},
    )


STARTERS: dict[str, Callable[..., Contender]] = {
    "redrive": redrive,
    "celery": celery,
    "procrastinate": procrastinate,
}
