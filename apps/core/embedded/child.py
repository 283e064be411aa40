"""One running child process: started with a lifeline in a process group of its own, waited for, stopped."""

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from contextlib import suppress
from pathlib import Path
from typing import Any

from apps.core.embedded import logs
from apps.core.embedded.lifeline import lifeline
from apps.core.embedded.service import Launch, Run, Service, UpError

PROBE_SECONDS = 0.05
FORCE_SECONDS = 5.0
HURRY_SECONDS = 1.0


async def spawn(
    launch: Launch, *, orphan_signal: signal.Signals, log: Path, stdin: int = DEVNULL, stdout: int | None = None
) -> Process:
    """Starts a process that writes to `log`. Call it from the main thread only (see `lifeline`)."""
    user = launch.user
    identity: dict[str, Any] = {}
    if user is not None:
        identity = {"user": user.uid, "group": user.gid, "extra_groups": []}
    output = logs.open_log(log)
    try:
        return await asyncio.create_subprocess_exec(
            *launch.argv,
            cwd=launch.cwd,
            env=dict(launch.environment),
            stdin=stdin,
            stdout=output if stdout is None else stdout,
            stderr=output,
            process_group=0,  # Ctrl-C in the terminal reaches the supervisor alone, which stops all in order
            preexec_fn=lifeline(orphan_signal),
            **identity,
        )
    finally:
        os.close(output)


def kill_group(pid: int) -> None:
    """Ends whatever is left of the process group that `pid` leads or led."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


class Child:
    """A service's process, from its start to its end."""

    def __init__(self, service: Service, run: Run, process: Process) -> None:
        self.service = service
        self.run = run
        self.process = process
        self.pid = process.pid
        self._buried = False

    @classmethod
    async def start(cls, service: Service, run: Run) -> "Child":
        """Starts the service's process; it need not be ready yet. Raises UpError when it cannot be executed."""
        launch = await service.launch(run)
        log = logs.log_path(run.data_dir, service.name)
        try:
            process = await spawn(launch, orphan_signal=service.orphan_signal, log=log)
        except OSError as error:
            raise UpError(f"{service.name} cannot be started: {error}") from None
        return cls(service, run, process)

    @property
    def is_running(self) -> bool:
        return self.process.returncode is None

    async def until_ready(self) -> None:
        """Returns when the service answers. Raises UpError, with the end of its log, when it dies or takes too long."""
        seconds = self.service.start_seconds
        try:
            async with asyncio.timeout(seconds):
                while not await self.service.is_ready(self.run):
                    if not self.is_running:
                        raise UpError(self.obituary("ended while starting"))
                    await asyncio.sleep(PROBE_SECONDS)
        except TimeoutError:
            raise UpError(self.obituary(f"did not get ready within {seconds:.0f} s", alive=True)) from None
        if not self.is_running:  # another program answered in its place
            raise UpError(self.obituary("ended while starting"))

    async def end(self) -> int:
        """Waits until the process has ended; its exit code, or minus the signal that ended it."""
        code = await self.process.wait()
        self._bury()
        return code

    async def stop(self, hurry: asyncio.Event) -> None:
        """Stops the process: kindly, then, after its time or soon after `hurry` is set, with force."""
        if self.is_running:
            self._send(self.service.stop_signal)
            if not await self._ends_within(self.service.stop_seconds, hurry):
                for force in (self.service.impatient_signal, signal.SIGKILL):
                    self._send(force)
                    if await self._ends_within(FORCE_SECONDS):
                        break
        self._bury()

    def _send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def _ends_within(self, seconds: float, hurry: asyncio.Event | None = None) -> bool:
        ended = asyncio.create_task(self.process.wait())
        hurried = asyncio.create_task((hurry or asyncio.Event()).wait())
        await asyncio.wait({ended, hurried}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if hurried.done():
            await asyncio.wait({ended}, timeout=HURRY_SECONDS)
        hurried.cancel()
        ended.cancel()
        return not self.is_running

    def _bury(self) -> None:
        """Ends what the process left in its group. Only once: later the number may be another program's."""
        if not self._buried:
            self._buried = True
            kill_group(self.pid)

    def obituary(self, what: str, *, alive: bool = False) -> str:
        """What happened to the process, with the last lines of its log."""
        code = self.process.returncode
        how = "" if alive or code is None else f" ({_how_it_ended(code)})"
        log = logs.log_path(self.run.data_dir, self.service.name)
        lines = logs.last_lines(log)
        indented = "".join(f"\n    {line}" for line in lines.splitlines()) or "\n    (nothing)"
        return f"{self.service.name} {what}{how}. The end of {log}:{indented}"


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
