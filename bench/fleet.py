"""All processes of Redrive, each started, killed and frozen at will: those of `manage.py up`, without its keeper."""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from apps.core.embedded import data_folder, plan
from apps.core.embedded.catalogue import SERVICES
from apps.core.embedded.lifeline import lifeline
from apps.core.embedded.service import ROOT, Launch, Service
from bench.process import tree

MANAGE = (sys.executable, str(ROOT / "manage.py"))
NAMES = ("postgres", "valkey", "web", "clock", "quarantine")


class Member:
    """One process and its successors."""

    def __init__(self, service: Service, run: plan.Run, name: str = "") -> None:
        self.service = service
        self.run = run
        self.name = name or service.name
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self, *, wait: bool = True) -> None:
        """Start it; wait: until it answers."""
        self.process = process = self._spawn(await self.service.launch(self.run))
        if wait:
            async with asyncio.timeout(self.service.start_seconds):
                while not await self.service.is_ready(self.run):
                    if process.poll() is not None:
                        raise SystemExit(f"{self.name} ended; see {self.run.data_dir}/log/{self.name}.out")
                    await asyncio.sleep(0.1)

    def _spawn(self, launch: Launch) -> "subprocess.Popen[bytes]":
        identity = {} if launch.user is None else {"user": launch.user.uid, "group": launch.user.gid}
        with (self.run.data_dir / "log" / f"{self.name}.out").open("ab") as log:
            return subprocess.Popen(
                launch.argv,
                cwd=launch.cwd,
                env=dict(launch.environment),
                stdout=log,
                stderr=log,
                process_group=0,
                preexec_fn=lifeline(self.service.orphan_signal),
                **identity,
            )

    def kill(self) -> None:
        """At once: Postgres as with `-m immediate`, the others with SIGKILL."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT if self.name == "postgres" else signal.SIGKILL)
            self.process.wait()

    async def freeze(self, seconds: float) -> None:
        """It keeps its connections and answers nothing for so long."""
        assert self.process is not None
        pids = tree(self.process.pid)
        for sign in (signal.SIGSTOP, signal.SIGCONT):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, sign)
            if sign == signal.SIGSTOP:
                await asyncio.sleep(seconds)

    def stop(self) -> None:
        """Kindly."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(self.service.stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(self.service.stop_seconds)
            self.kill()


class Fleet:
    """One Redrive in a data folder, with so many workers without Celery. members: by name; workers are worker1, ..."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = data_folder.make(folder / "data")
        self.run = plan.make_run(plan.Options(data_dir=self.folder, only=NAMES), self.folder, environ={})
        os.environ.setdefault("REDRIVE_LOG_LEVEL", "WARNING")
        self.members = {name: Member(SERVICES[name], self.run) for name in NAMES}
        for number in range(1, workers + 1):
            self.members[f"worker{number}"] = Member(WORKER, self.run, f"worker{number}")

    async def start(self) -> None:
        """Stores, schema, then the rest."""
        for name in ("postgres", "valkey"):
            await self.members[name].start()
        await asyncio.to_thread(self.manage, "prepare")
        for name, member in self.members.items():
            if name not in {"postgres", "valkey"}:
                await member.start()

    def named(self, name: str) -> list[Member]:
        """The members of a name; `worker` stands for all workers, `api` for the web server."""
        known = {"api": "web", "redis": "valkey"}.get(name, name)
        return [member for own, member in self.members.items() if own == known or own.rstrip("0123456789") == known]

    def manage(self, *command: str) -> str:
        """A command's standard output."""
        done = subprocess.run([*MANAGE, *command], env=self.run.environment(), capture_output=True, text=True)
        if done.returncode:
            print(done.stdout, done.stderr, file=sys.stderr)
        return done.stdout

    def stop(self) -> None:
        """All, the stores last."""
        for member in reversed(self.members.values()):
            member.stop()


async def _launch_worker(run: plan.Run) -> Launch:
    return Launch((*MANAGE, "worker"), run.environment())


async def _at_once(_: plan.Run) -> bool:
    return True


WORKER = Service("worker", _launch_worker, _at_once, listens=False, stop_seconds=50)
