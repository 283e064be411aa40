"""Whether claim, sweep and lists stay as quick as they were: over 10 thousand, 1 million and 5 million finished tasks.

A database of its own is filled by generate_series (tasks, payloads, attempts, results) and analysed; then the
functions of the product are called and timed, with 500 due tasks claimed and finished in each repetition.
Bar: at most twice the time they take over 10 thousand.
"""

import argparse
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any
from uuid import UUID, uuid4

import psycopg

from bench import gateway, process
from bench.report import markdown, number
from bench.tasks import stage

NAME = "bench_history"
BAR = 2.0
BATCH = 100  # tasks of one claim
DUE = 500
Timings = dict[str, list[float]]  # what -> seconds

FILL = """
WITH new AS (
  SELECT uuidv7(make_interval(secs => n - %(last)s - 3600)) AS id, n,
         now() + make_interval(secs => n - %(last)s - 3600) AS at
  FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n),
 tasks AS (
  INSERT INTO tasks_task (id, project_id, api_key_id, request_id, end_user, kind, schema_version, state, priority,
    queue, next_attempt_at, deadline, cancel_requested, attempt, cycle, charged_failures, worker_losses, callback_url,
    metadata, progress, error, created_at, started_at, finished_at)
  SELECT id, %(project)s, NULL, 'req_' || n, '', 'chat_completion', 1,
    CASE WHEN n %% 100 = 0 THEN 'dead' WHEN n %% 100 = 1 THEN 'cancelled' ELSE 'succeeded' END, 'default',
    CASE WHEN n %% 10 = 0 THEN 'low' ELSE 'default' END, at, at + interval '1 day', false, 1, 1, 0, 0, '', '', '', '',
    at, at, at + interval '1 second'
  FROM new),
 payloads AS (
  INSERT INTO tasks_taskpayload (task_id, revision, body, created_at) SELECT id, 1, '{"n":' || n || '}', at FROM new),
 results AS (
  INSERT INTO tasks_taskresult (task_id, token, body, created_at) SELECT id, n, '{"n":' || n || '}', at FROM new)
INSERT INTO tasks_taskattempt (task_id, number, cycle, token, worker, started_at, finished_at, outcome, charged,
  error_code, error_message, fingerprint, traceback, upstream, input_tokens, output_tokens, cost_nusd)
SELECT id, 1, 1, n, %(worker)s, at, at + interval '1 second', 'succeeded', false, '', '', '', '', 'bench/model', 10, 5,
  0
FROM new
"""
TABLES = ("tasks_task", "tasks_taskpayload", "tasks_taskresult", "tasks_taskattempt")
PIECE = 250_000  # rows of one statement


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of this part."""
    parser.add_argument(
        "--sizes",
        type=lambda text: [int(size) for size in text.split(",")],
        default=[10_000, 1_000_000, 5_000_000],
        help="finished tasks, rising (10000,1000000,5000000; about 12 GB and 15 minutes)",
    )
    parser.add_argument("--repeat", type=int, default=40, help="times that each is measured (40)")


def main(args: argparse.Namespace) -> int:
    """Measure and print; exit status as the others."""
    with stage.start(args.folder, only="postgres,valkey") as where:
        settings = stage.refuse_unless_durable(where.database_url)
        url = where.make_database(NAME)
        environment = {"REDRIVE_DATA_DIR": str(where.folder / "data"), "REDRIVE_DATABASE_URL": url}
        os.environ.update(environment, DJANGO_SETTINGS_MODULE="config.settings", REDRIVE_LOG_LEVEL="ERROR")
        subprocess.run([sys.executable, "manage.py", "migrate", "-v", "0"], cwd=process.REPOSITORY, check=True)
        import django

        django.setup()
        measured: dict[int, Timings] = {}
        plans: list[str] = []
        project, filled = uuid4(), 0
        for size in args.sizes:
            fill(url, filled + 1, size, project)
            filled = size
            print(f"{size:,} finished tasks: measuring", file=sys.stderr)
            measured[size], plans = measure(args.repeat, project)
    text = f"{gateway.machine()}; medians of {args.repeat}, ms; {settings}.\n\n{table(measured)}"
    if plans:
        text += (
            "\n\nSequential scans of the tables of tasks in the plans of these statements: " + "; ".join(plans) + "."
        )
    print(text)
    if args.readme:
        gateway.write_section("history", f"{text}\n")
    return 0


def fill(url: str, first: int, last: int, project: UUID) -> None:
    """Finished tasks up to so many, and fresh statistics."""
    with psycopg.connect(url, autocommit=True) as connection:
        worker = uuid4()
        for start in range(first, last + 1, PIECE):
            end = min(start + PIECE - 1, last)
            connection.execute(FILL, {"first": start, "last": end, "project": project, "worker": worker})
            print(f"{end:,} rows", file=sys.stderr)
        connection.execute("VACUUM (ANALYZE) " + ", ".join(TABLES))
        connection.execute("CHECKPOINT")


def measure(repeat: int, project: UUID) -> tuple[Timings, list[str]]:
    """Seconds of each function, and what the planner reads from end to end."""
    from django.db import connection

    seen = Statements()
    timings: Timings = defaultdict(list)
    round_of_calls(defaultdict(list), project)  # connections, caches
    for index in range(repeat):
        if index == 0:
            with connection.execute_wrapper(seen):
                round_of_calls(defaultdict(list), project)
        round_of_calls(timings, project)
    return timings, seen.scans()


def round_of_calls(timings: Timings, project: UUID) -> None:
    """Every function once, claim and finish five times."""
    from django.db import transaction

    from apps.tasks import kinds, queries, states
    from apps.tasks.enqueue import NewTask, insert
    from apps.tasks.lifecycle import leases, reap
    from apps.tasks.lifecycle.claim import claim, due_queues
    from apps.tasks.lifecycle.expire import expire
    from apps.tasks.lifecycle.finish import finish

    def timed(name: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        result = call(*args, **kwargs)
        timings[name].append(time.perf_counter() - began)
        return result

    kind, worker = kinds.find("chat_completion"), uuid4()
    present(worker)
    with transaction.atomic():
        insert([NewTask(project, kind, "{}", deadline=kind.deadline) for _ in range(DUE)])
    timed("due_queues (sweep)", due_queues, states.QUEUES)
    claimed = []
    for _ in range(DUE // BATCH):
        claimed += timed(f"claim of {BATCH}", claim, states.DEFAULT, worker, BATCH, limits=kinds.limits())
    running = queries.Filters(status="running")
    timed("list, running ones", queries.page, project, running, after=None, limit=20)
    timed(f"leases.held of {DUE}", leases.held, worker)
    timed("leases.hand_back of none", leases.hand_back, worker, known=[task.id for task in claimed])
    timed("reap of none", reap.reap)
    timed("expire of none", expire)
    for start in range(0, DUE, BATCH):
        timed(f"finish of {BATCH}", finish, [succeeded(task, worker) for task in claimed[start : start + BATCH]])
    timed("claim from an empty queue", claim, states.DEFAULT, worker, BATCH, limits=kinds.limits())
    filters = queries.Filters()
    page = timed("list, first page", queries.page, project, filters, after=None, limit=20)
    after = UUID(page["last_id"].removeprefix("task_"))
    timed("list, next page", queries.page, project, filters, after=after, limit=20)
    timed("list, dead ones", queries.page, project, queries.Filters(status="dead"), after=after, limit=20)
    timed("list, running ones (none)", queries.page, project, running, after=None, limit=20)
    timed("one task", queries.one, project, after)
    timed("attempts of a task", queries.attempts, project, after)


def present(worker: UUID) -> None:
    """The worker's sign of life, so that nobody reaps its tasks."""
    from django.db.models.functions import Now
    from django.utils import timezone

    from apps.tasks.models import WorkerPresence

    WorkerPresence.objects.all().delete()
    WorkerPresence.objects.create(
        id=worker, lock_key=1, host="bench", pid=1, queues="default", slots=DUE, beat_at=Now(),
        expires_at=timezone.now() + timezone.timedelta(hours=1),
    )  # fmt: skip


def succeeded(task: Any, worker: UUID) -> Any:
    """A good end of an attempt."""
    from apps.tasks import states
    from apps.tasks.lifecycle.ending import Ending
    from apps.tasks.models import TaskAttempt
    from apps.tasks.retry_policy import Decision

    return Ending(
        task_id=task.id, kind=task.kind, token=task.token, number=task.attempt, cycle=task.cycle, worker=worker,
        request_id="req",
        started_at=task.started_at, decision=Decision(states.SUCCEEDED, TaskAttempt.Outcome.SUCCEEDED), result="{}",
    )  # fmt: skip


class Statements:
    """Keeps each statement's plan: which of the large tables it reads from end to end."""

    def __init__(self) -> None:
        self._scans: set[str] = set()
        self._busy = False

    def __call__(self, execute: Callable[..., Any], statement: str, params: Any, many: bool, context: Any) -> Any:
        if not self._busy and not many and statement.lstrip().startswith(("SELECT", "WITH", "UPDATE", "DELETE")):
            self._busy = True
            try:
                with context["connection"].cursor() as cursor:
                    cursor.execute(f"EXPLAIN {statement}", params)
                    lines = [row[0].strip() for row in cursor.fetchall()]
            finally:
                self._busy = False
            for table in TABLES:
                if any(line.removeprefix("->  ").startswith(f"Seq Scan on {table} ") for line in lines):
                    self._scans.add(f"{table} in `{' '.join(statement.split())[:60]}...`")
        return execute(statement, params, many, context)

    def scans(self) -> list[str]:
        """The findings."""
        return sorted(self._scans)


def table(measured: dict[int, Timings]) -> str:
    """Medians by size, and how many times the smallest size's the others are."""
    sizes = list(measured)
    rows = []
    for name in measured[sizes[0]]:
        found = [median(measured[size][name]) * 1e3 for size in sizes]
        worst = max(found) / found[0]
        rows.append([name, *(number(value, 2) for value in found), f"{worst:.2f}", "met" if worst <= BAR else "MISSED"])
    return markdown(["call", *(f"{size:,}" for size in sizes), "worst ratio", f"<= {BAR:g}"], rows)
