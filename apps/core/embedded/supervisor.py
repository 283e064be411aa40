"""Keeps one run of `up` alive: starts everything in order, restarts what may be restarted, stops all in order."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from apps.core.embedded import logs
from apps.core.embedded.child import Child
from apps.core.embedded.data_folder import UP, write_private
from apps.core.embedded.screen import say
from apps.core.embedded.service import Entry, Run, Service, Step, UpError

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a restart: doubled each time, back to the first after a healthy minute."""
HEALTHY_SECONDS = 60.0
LOG_CHECK_SECONDS = 60.0


class Supervisor:
    """One run. `run()` returns when everything it started has ended."""

    def __init__(self, run: Run, entries: list[Entry], announce: Callable[[Run], None]) -> None:
        self._run = run
        self._entries = entries
        self._announce = announce
        self._ready = {entry.name: asyncio.Event() for entry in entries}
        self._children: dict[str, Child] = {}
        self._wants_stop = asyncio.Event()
        self._hurry = asyncio.Event()

    async def run(self) -> int:
        """Runs until a signal or a fatal failure; the exit code: 0 after a signal, 1 after a failure."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup wants it to stay
                loop.add_signal_handler(number, self._on_signal)
        living = asyncio.create_task(self._live())
        stopping = asyncio.create_task(self._wants_stop.wait())
        await asyncio.wait({living, stopping}, return_when=asyncio.FIRST_COMPLETED)
        failure = None
        living.cancel()
        stopping.cancel()
        try:
            with suppress(asyncio.CancelledError):
                await living
        except* UpError as group:
            failure = _first(group)
            say(failure)
        finally:
            await self._stop_all()
        return 1 if failure else 0

    def _on_signal(self) -> None:
        if self._wants_stop.is_set():
            self._hurry.set()
        else:
            say("stopping (again to hurry)")
        self._wants_stop.set()

    async def _live(self) -> None:
        async with asyncio.TaskGroup() as group:
            for entry in self._entries:
                group.create_task(self._keep(entry) if isinstance(entry, Service) else self._do(entry))
            group.create_task(self._welcome())
            group.create_task(self._bound_logs())

    async def _gate(self, entry: Entry) -> None:
        for name in entry.after:
            if name in self._ready:
                await self._ready[name].wait()

    async def _do(self, step: Step) -> None:
        logs.start_afresh(logs.log_path(self._run.data_dir, step.name))
        await step.act(self._run, lambda: self._gate(step))
        self._ready[step.name].set()

    async def _keep(self, service: Service) -> None:
        """Starts the service and keeps it: returns never, raises UpError when nothing can go on without it."""
        logs.start_afresh(logs.log_path(self._run.data_dir, service.name))
        await self._gate(service)
        child = await self._start(service)
        self._ready[service.name].set()
        pause = FIRST_PAUSE
        while True:
            born = time.monotonic()
            await child.end()
            if not service.restarts:
                raise UpError(child.obituary("ended, and nothing can go on without it"))
            self._write_up_file()
            if time.monotonic() - born > HEALTHY_SECONDS:
                pause = FIRST_PAUSE
            reason = child.obituary("ended")
            while reason:
                say(f"{reason}\n    It starts again in {pause:g} s.")
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                try:
                    child, reason = await self._start(service), ""
                except UpError as error:
                    reason = str(error)
                    await self._children[service.name].stop(self._hurry)
            self._write_up_file()

    async def _start(self, service: Service) -> Child:
        started = time.monotonic()
        child = await Child.start(service, self._run)
        self._children[service.name] = child
        await child.until_ready()
        port = self._run.ports.get(service.name)
        where = f" on port {port}" if port else ""
        say(f"{service.name} is ready{where} ({time.monotonic() - started:.1f} s)")
        return child

    async def _welcome(self) -> None:
        for event in self._ready.values():
            await event.wait()
        self._write_up_file(first=True)
        self._announce(self._run)

    def _write_up_file(self, *, first: bool = False) -> None:
        path = self._run.data_dir / UP
        if first or path.exists():  # while starting, nothing is announced yet
            running = {name: child.pid for name, child in self._children.items() if child.is_running}
            write_private(path, up_content(self._run, {"supervisor": os.getpid(), **running}))

    async def _bound_logs(self) -> None:
        while True:
            await asyncio.sleep(LOG_CHECK_SECONDS)
            for name in self._children:
                logs.bound(logs.log_path(self._run.data_dir, name))

    async def _stop_all(self) -> None:
        (self._run.data_dir / UP).unlink(missing_ok=True)
        for entry in reversed(self._entries):
            child = self._children.get(entry.name)
            if child is not None:
                await child.stop(self._hurry)
        if self._children:
            say("stopped")


def up_content(run: Run, pids: dict[str, int]) -> dict[str, object]:
    """What `up.json` says: where this run is, how to get in, and who runs."""
    return {
        "url": run.url,
        "admin_url": f"{run.url}/admin/" if run.url else "",
        "database_url": run.database_url,
        "redis_url": run.redis_url,
        "api_key": run.secrets["api_key"],
        "admin": {"username": "admin", "password": run.facts.get("admin_password", "")},
        "postgres_data": run.facts.get("postgres_data", ""),
        "pids": pids,
    }


def _first(group: BaseExceptionGroup[UpError]) -> str:
    """The message of the failure that came first; those that follow from it would only hide it."""
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else str(error)
    return ""
