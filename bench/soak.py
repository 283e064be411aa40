"""Kills workers with SIGKILL while tasks run, for as long as you like, and counts what was lost: it must be none.

Starts stores, web server and clock with `manage.py up`, two workers of its own and a scripted upstream; sends tasks
without pause; kills a worker now and then and starts another; at the end waits until every task is final. Prints
accepted, finished, lost, doubled, and how long work of a killed worker took to begin again; then runs `verify`.

  .venv/bin/python -m bench.soak                            20,000 tasks, 40 kills
  .venv/bin/python -m bench.soak --tasks 2000 --kills 5     a quick look
"""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import psycopg

from bench.servers import free_port

ROOT = Path(__file__).resolve().parent.parent
MANAGE = [sys.executable, str(ROOT / "manage.py")]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks to send (20000)")
    parser.add_argument("--kills", type=int, default=40, help="workers to kill (40)")
    parser.add_argument("--workers", type=int, default=2, help="workers at a time (2)")
    parser.add_argument("--delay-ms", type=int, default=300, help="the upstream's thinking time (300)")
    parser.add_argument("--in-flight", type=int, default=400, help="requests of the sender at a time (400)")
    parser.add_argument("--seed", type=int, default=None, help="of the random moments")
    return parser.parse_args()


class Soak:
    """One run."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args = args
        self.folder = folder
        self.children: list[subprocess.Popen[bytes]] = []
        self.accepted: list[str] = []
        self.refused = 0
        self.killed_at: list[float] = []

    def start(self) -> None:
        """Stores, web server, clock, upstream; then the workers."""
        self.upstream_port = free_port()
        upstream = [sys.executable, "-m", "bench.upstream", "--port", str(self.upstream_port)]
        upstream += ["--delay-ms", str(self.args.delay_ms)]
        self.children.append(subprocess.Popen(upstream, cwd=ROOT, start_new_session=True))
        only = "postgres,valkey,web,clock,quarantine"
        self.up = subprocess.Popen(
            [*MANAGE, "up", "--only", only, "--data-dir", str(self.folder), "--port", str(free_port())],
            cwd=ROOT, stdout=(self.folder / "up.out").open("wb"), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.wait_for_up()
        base_url = f"http://127.0.0.1:{self.upstream_port}/v1"
        self.manage("add_provider", "soak", "--base-url", base_url, "--models", "bench-model")
        self.key = self.manage("create_api_key", "soak", "--rpm", "100000000").splitlines()[-1]
        self.workers = [self.start_worker() for _ in range(self.args.workers)]

    def wait_for_up(self) -> None:
        """Until the web server is ready."""
        for _ in range(600):
            try:
                found = json.loads((self.folder / "up.json").read_text())
                if {"web", "clock"} <= found["pids"].keys():
                    self.url, self.database_url = found["url"], found["database_url"]
                    return
            except (OSError, ValueError, KeyError):
                pass
            if self.up.poll() is not None:
                break
            time.sleep(0.2)
        raise SystemExit(f"up did not start:\n{(self.folder / 'up.out').read_text()}")

    def manage(self, *command: str) -> str:
        """A command's standard output."""
        done = subprocess.run([*MANAGE, *command], cwd=ROOT, env=self.environment(), capture_output=True, text=True)
        if done.returncode:
            print(done.stdout, done.stderr)
        return done.stdout

    def environment(self) -> dict[str, str]:
        """Of our own processes."""
        return {**os.environ, "REDRIVE_DATA_DIR": str(self.folder), "REDRIVE_LOG_LEVEL": "WARNING"}

    def start_worker(self) -> "subprocess.Popen[bytes]":
        """A worker without Celery, whose log goes to the folder."""
        log = (self.folder / "worker.out").open("ab")
        return subprocess.Popen(
            [*MANAGE, "worker"], cwd=ROOT, env=self.environment(), stdout=log, stderr=log, start_new_session=True
        )

    async def send(self) -> None:
        """All tasks, so many requests at a time."""
        left = iter(range(self.args.tasks))
        headers = {"Authorization": f"Bearer {self.key}"}
        body = {"model": "bench-model", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 16}
        async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:

            async def sender() -> None:
                for _ in left:
                    async with session.post(f"{self.url}/v1/tasks/chat/completions", json=body) as reply:
                        if reply.status == 202:
                            self.accepted.append((await reply.json())["task_id"])
                        else:
                            self.refused += 1

            await asyncio.gather(*(sender() for _ in range(min(self.args.in_flight, 64))))

    async def kill(self) -> None:
        """Kill a worker at random moments and start another in its place."""
        for _ in range(self.args.kills):
            await asyncio.sleep(random.uniform(0.5, 2.5))
            victim = random.randrange(len(self.workers))
            self.workers[victim].send_signal(signal.SIGKILL)
            self.killed_at.append(time.time())
            self.workers[victim].wait()
            self.workers[victim] = self.start_worker()

    async def wait_for_the_end(self) -> float:
        """Until every task is final; seconds."""
        began = time.monotonic()
        while time.monotonic() - began < 600:
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
        taken = self._since_kills("finished_at", "a")
        again = self._since_kills("started_at", "b")
        return {
            "sent": self.args.tasks,
            "accepted": len(self.accepted),
            "refused": self.refused,
            "kills": len(self.killed_at),
            "attempts lost with a worker": len(taken),
            "states": states,
            "lost": len(set(self.accepted) - final),
            "succeeded twice": doubled,
            "kill to taken from the dead worker, s": spread(taken),
            "kill to begun again, delay of the retry included, s": spread(again),
            "tail s": round(tail, 1),
        }

    def _since_kills(self, column: str, of: str) -> list[float]:
        """Seconds from the last kill before it to a time of each lost attempt (a), or of the one after it (b)."""
        rows = self.query(
            f"SELECT extract(epoch FROM {of}.{column}) FROM tasks_taskattempt a JOIN tasks_taskattempt b "
            "ON b.task_id = a.task_id AND b.number = a.number + 1 WHERE a.outcome = 'worker_lost'"
        )
        times = [float(row[0]) for row in rows]
        return sorted(at - max((kill for kill in self.killed_at if kill <= at), default=at) for at in times)

    def stop(self) -> None:
        """End what was started."""
        for child in (*getattr(self, "workers", ()), self.up, *self.children):
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        for child in (*getattr(self, "workers", ()), self.up, *self.children):
            child.wait(60)


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and longest."""
    if not seconds:
        return {}
    return {"median": round(seconds[len(seconds) // 2], 2), "longest": round(seconds[-1], 2)}


async def run(soak: Soak) -> float:
    """Send and kill side by side, then wait."""
    await asyncio.gather(soak.send(), soak.kill())
    return await soak.wait_for_the_end()


def main() -> None:
    args = parse()
    random.seed(args.seed)
    with tempfile.TemporaryDirectory(prefix="redrive-soak-") as folder:
        soak = Soak(args, Path(folder))
        try:
            soak.start()
            print(json.dumps(soak.report(asyncio.run(run(soak))), indent=1))
            print(soak.manage("verify"))
        finally:
            soak.stop()


if __name__ == "__main__":
    main()
