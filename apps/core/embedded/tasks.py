"""The processes that do background work: Celery's worker, the quarantine worker, the clock, and Celery's beat."""

import sys
from typing import LiteralString

import psycopg

from apps.core.embedded.service import ROOT, Launch, Run, Service

MANAGE = (sys.executable, str(ROOT / "manage.py"))
CELERY = (sys.executable, "-m", "celery", "--app", "config")
STOP_SECONDS = 50  # running attempts get REDRIVE_WORKER_GRACE, then are handed back
AFTER = ("postgres", "valkey", "prepare")

_SERVES: LiteralString = """
SELECT EXISTS (
  SELECT 1 FROM tasks_workerpresence WHERE expires_at > now() AND %s = ANY(string_to_array(queues, ',')))
"""
_BEATS: LiteralString = (
    "SELECT EXISTS (SELECT 1 FROM tasks_clockbeat WHERE chore = %s AND beat_at > now() - interval '5 s')"
)


async def _launch_worker(run: Run) -> Launch:
    options = ("--pool", "threads", "--concurrency", "4", "--queues", "chores,rings", "--loglevel", "WARNING")
    return Launch((*CELERY, "worker", *options, "--without-gossip", "--without-mingle"), run.environment())


async def _launch_quarantine(run: Run) -> Launch:
    return Launch((*MANAGE, "worker", "--queue", "quarantine"), run.environment())


async def _launch_clock(run: Run) -> Launch:
    return Launch((*MANAGE, "clock"), run.environment())


async def _launch_beat(run: Run) -> Launch:
    return Launch((*CELERY, "beat", "--loglevel", "WARNING", "--pidfile", ""), run.environment())


async def _worker_is_ready(run: Run) -> bool:
    return await _says(run, _SERVES, "default")


async def _quarantine_is_ready(run: Run) -> bool:
    return await _says(run, _SERVES, "quarantine")


async def _clock_is_ready(run: Run) -> bool:
    return await _says(run, _BEATS, "ring")


async def _beat_is_ready(run: Run) -> bool:
    return True  # it tells nobody; that it lives is all there is to know


async def _says(run: Run, question: LiteralString, value: str) -> bool:
    try:
        async with await psycopg.AsyncConnection.connect(run.database_url, connect_timeout=2) as connection:
            cursor = await connection.execute(question, [value])
            row = await cursor.fetchone()
    except psycopg.Error:
        return False
    return bool(row and row[0])


WORKER = Service("worker", _launch_worker, _worker_is_ready, after=AFTER, listens=False, stop_seconds=STOP_SECONDS)
QUARANTINE = Service(
    "quarantine", _launch_quarantine, _quarantine_is_ready, after=AFTER, listens=False, stop_seconds=STOP_SECONDS
)
CLOCK = Service("clock", _launch_clock, _clock_is_ready, after=AFTER, listens=False)
BEAT = Service("beat", _launch_beat, _beat_is_ready, after=AFTER, listens=False)
