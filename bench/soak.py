"""Kills, freezes and empties what Redrive is made of while tasks run, and counts what was lost: it must be none.

Starts all of Redrive's processes in a folder of its own with two workers and a scripted upstream; sends tasks without
pause, each with an Idempotency-Key that is repeated until the answer is 202; does harm at random moments and starts
again what it killed; at the end waits until every task is final. Prints accepted, finished, lost, doubled, how long
work of a killed worker took to begin again, and how long a POST took, also while Redis was frozen; then runs `verify`.

  .venv/bin/python -m bench.soak                                      20,000 tasks, 40 kills of workers
  .venv/bin/python -m bench.soak --tasks 3000 --kills 10              a quick look
  .venv/bin/python -m bench.soak --kill worker,api,clock,postgres,valkey --freeze valkey --flush
  .venv/bin/python -m bench.soak --kill postgres --minutes 60         for an hour, a blow each two to five seconds
"""

import argparse
import asyncio
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import psycopg
from redis.asyncio import Redis

from bench.fleet import ROOT, Fleet, Member
from bench.servers import free_port
from bench.soak_options import BETWEEN, BETWEEN_LONG, PATIENCE, parse


class Soak:
    """One run."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args = args
        self.fleet = Fleet(folder, args.workers)
        port = free_port()
        self.upstream_url = f"http://127.0.0.1:{port}/v1"
        upstream = [sys.executable, "-m", "bench.upstream", "--port", str(port), "--delay-ms", str(args.delay_ms)]
        self.upstream = subprocess.Popen(upstream, cwd=ROOT, start_new_session=True)
        self.url = self.fleet.run.url
        self.database_url = self.fleet.run.database_url
        self.until = time.monotonic() + args.minutes * 60 if args.minutes else float("inf")
        self.accepted: set[str] = set()
        self.sent = 0
        self.finished = 0
        self.given_up = 0
        self.replies: Counter[str] = Counter()
        self.seconds: dict[str, list[float]] = {"usual": [], "while Redis is frozen": []}
        self.blows: Counter[str] = Counter()
        self.killed_at: list[float] = []
        self.redis_is_frozen = False
        self.sending = True
        self.blows_under_load = 0

    async def start(self) -> None:
        """Redrive, a route to the upstream, and a key."""
        await self.fleet.start()
        self.fleet.manage("add_provider", "soak", "--base-url", self.upstream_url, "--models", "bench-model")
        self.key = self.fleet.manage("create_api_key", "soak", "--rpm", "100000000").splitlines()[-1]

    # Load

    async def send(self) -> None:
        """All tasks, so many requests at a time."""
        left = itertools.count() if self.args.minutes else iter(range(self.args.tasks))
        timeout = aiohttp.ClientTimeout(total=30)
        headers = {"Authorization": f"Bearer {self.key}"}
        self.began = time.monotonic()
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(headers=headers, connector=connector, timeout=timeout) as session:
            senders = [self._sender(session, left) for _ in range(self.args.in_flight)]
            await asyncio.gather(*senders)
        self.sending = False

    async def _sender(self, session: aiohttp.ClientSession, left: Iterator[int]) -> None:
        for _ in left:
            if time.monotonic() > self.until:
                return
            while self.sent - self.finished > self.args.backlog:  # noqa: ASYNC110 (looked at once a second)
                await asyncio.sleep(0.1)
            self.sent += 1
            if self.args.rate:
                await asyncio.sleep(self.began + self.sent / self.args.rate - time.monotonic())
            await self._accept(session, uuid4().hex)

    async def _accept(self, session: aiohttp.ClientSession, key: str) -> None:
        """Repeat one request with its Idempotency-Key until it is accepted."""
        body = {"model": "bench-model", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 16}
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE:
            at, frozen = time.monotonic(), self.redis_is_frozen
            try:
                async with session.post(
                    f"{self.url}/v1/tasks/chat/completions", json=body, headers={"Idempotency-Key": key}
                ) as reply:
                    found = await reply.json()
                    status = str(reply.status)
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                found, status = {}, type(error).__name__
            self.replies[status] += 1
            self.seconds["while Redis is frozen" if frozen else "usual"].append(time.monotonic() - at)
            if status == "202":
                self.accepted.add(found["task_id"])
                return
            await asyncio.sleep(0.25)
        self.given_up += 1

    async def look(self) -> None:
        """Count what has ended, each second; Postgres may be away."""
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(self.database_url, connect_timeout=2) as connection:
                    rows = await connection.execute("SELECT count(*) FROM tasks_task WHERE finished_at IS NOT NULL")
                    row = await rows.fetchone()
                    self.finished = row[0] if row else 0
            except psycopg.Error:
                pass
            await asyncio.sleep(1)

    # Blows

    async def strike(self) -> None:
        """Blow after blow at random moments, every way as often as the others."""
        ways: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            *((f"kill {name}", lambda name=name: self._kill(name)) for name in self.args.kill),
            *((f"freeze {name}", lambda name=name: self._freeze(name)) for name in self.args.freeze),
            *([("flush", self._flush)] if self.args.flush else []),
        ]
        turn = itertools.cycle(ways)
        for _ in itertools.count() if self.args.minutes else range(self.args.kills):
            await asyncio.sleep(random.uniform(*(BETWEEN_LONG if self.args.minutes else BETWEEN)))
            if time.monotonic() > self.until:
                return
            name, way = next(turn)
            self.blows[name] += 1
            self.blows_under_load += self.sending
            await way()

    async def _kill(self, name: str) -> None:
        victim: Member = random.choice(self.fleet.named(name))
        if name == "worker":
            self.killed_at.append(time.time())
        await asyncio.to_thread(victim.kill)
        if name in {"postgres", "valkey"}:
            await asyncio.sleep(random.uniform(0, 2))
        await victim.start()

    async def _freeze(self, name: str) -> None:
        self.redis_is_frozen = name == "valkey"
        await random.choice(self.fleet.named(name)).freeze(self.args.frozen)
        self.redis_is_frozen = False

    async def _flush(self) -> None:
        async with Redis.from_url(self.fleet.run.redis_url) as client:
            await client.flushall()

    # Figures

    async def wait_for_the_end(self) -> float:
        """Until every task is final; seconds."""
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE:
            if self.query("SELECT count(*) FROM tasks_task WHERE finished_at IS NULL")[0][0] == 0:
                break
            await asyncio.sleep(0.5)
        return time.monotonic() - began

    def query(self, statement: Any) -> list[tuple[Any, ...]]:
        """Rows."""
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(statement).fetchall()

    def report(self, tail: float) -> dict[str, Any]:
        """What became of it all."""
        states = dict(self.query("SELECT state, count(*) FROM tasks_task GROUP BY state"))
        final = {f"task_{row[0].hex}" for row in self.query("SELECT id FROM tasks_task WHERE finished_at IS NOT NULL")}
        doubled = self.query(
            "SELECT count(*) FROM (SELECT task_id FROM tasks_taskattempt WHERE outcome = 'succeeded' "
            "GROUP BY task_id HAVING count(*) > 1) d"
        )[0][0]
        taken, again = self._since_kills("finished_at", "a"), self._since_kills("started_at", "b")
        return {
            "sent": self.sent,
            "accepted": len(self.accepted),
            "replies": dict(self.replies),
            "given up": self.given_up,
            "blows": dict(self.blows),
            "of them while tasks were sent": self.blows_under_load,
            "states": states,
            "attempts": dict(self.query("SELECT outcome, count(*) FROM tasks_taskattempt GROUP BY outcome")),
            "lost": len(self.accepted - final),
            "tasks beyond the keys": sum(states.values()) - self.sent,
            "succeeded twice": doubled,
            "POST, s": {name: spread(found) for name, found in self.seconds.items() if found},
            "kill of a worker to taken from it, s": spread(taken),
            "kill of a worker to begun again, delay of the retry included, s": spread(again),
            "tail s": round(tail, 1),
        }

    def _since_kills(self, column: str, of: str) -> list[float]:
        """Seconds from the last kill before it to a time of each lost attempt (a), or of the one after it (b)."""
        rows = self.query(
            f"SELECT extract(epoch FROM {of}.{column}) FROM tasks_taskattempt a JOIN tasks_taskattempt b "
            "ON b.task_id = a.task_id AND b.number = a.number + 1 WHERE a.outcome = 'worker_lost'"
        )
        times = [float(row[0]) for row in rows]
        return [at - max((kill for kill in self.killed_at if kill <= at), default=at) for at in times]

    def stop(self) -> None:
        """End what was started."""
        self.fleet.stop()
        self.upstream.terminate()
        self.upstream.wait(30)


def spread(seconds: list[float]) -> dict[str, float]:
    """Median, 99th percentile and longest, with how many there were."""
    if not seconds:
        return {}
    ordered = sorted(seconds)
    at = {"median": len(ordered) // 2, "p99": int(len(ordered) * 0.99), "longest": len(ordered) - 1}
    return {"n": len(ordered), **{name: round(ordered[place], 2) for name, place in at.items()}}


async def run(soak: Soak) -> float:
    """Send and strike side by side, then wait."""
    await soak.start()
    looking = asyncio.create_task(soak.look())
    await asyncio.gather(soak.send(), soak.strike())
    looking.cancel()
    return await soak.wait_for_the_end()


def main() -> None:
    args = parse(__doc__ or "")
    random.seed(args.seed)
    with tempfile.TemporaryDirectory(prefix="redrive-soak-") as folder:
        Path(folder).chmod(0o711)  # as root, Postgres runs as nobody, who must reach its data
        soak = Soak(args, Path(folder))
        try:
            print(json.dumps(soak.report(asyncio.run(run(soak))), indent=1))
            print(soak.fleet.manage("verify"))
        finally:
            soak.stop()


if __name__ == "__main__":
    main()
