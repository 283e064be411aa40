"""Start, pin, measure and stop processes of one's own; figures come from /proc and cover a process tree."""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def stat_fields(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the command's name; [] when the process has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def tree(root: int) -> list[int]:
    """The process `root` and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := stat_fields(int(entry))):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of the processes, their ended threads and their reaped children included."""
    return sum(sum(map(int, fields[11:15])) for pid in pids if (fields := stat_fields(pid))) / TICKS


def rss_bytes(pids: Iterable[int]) -> int:
    """Resident memory; pages that two of the processes share count twice."""
    return sum(int(fields[21]) * PAGE for pid in pids if (fields := stat_fields(pid)))


def pin(pids: Iterable[int], cpu: int) -> None:
    """Bind every thread of the processes to one CPU."""
    for pid in pids:
        with suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), {cpu})


@contextmanager
def on_cpu(cpu: int | None) -> Iterator[None]:
    """Children started inside are bound to `cpu` (None: to none): they inherit it before their first thread."""
    if cpu is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def start(
    command: list[str], *, cpu: int | None, log: Path, env: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Run `command` in the repository, on one CPU (None: any), in a group of its own, both outputs into `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with on_cpu(cpu), log.open("wb") as out:
        return subprocess.Popen(
            command,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )


def stop(child: "subprocess.Popen[bytes]", *, patience: float = 30.0) -> None:
    """SIGTERM to the child alone (it stops its own children); SIGKILL to its group when patience ends."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(patience)
            return
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def wait_until_quiet(root: int, *, below: float = 0.05, at_most: float = 20.0) -> None:
    """Return once the tree has used less than `below` of one CPU for half a second, or time is up."""
    deadline = time.monotonic() + at_most
    while time.monotonic() < deadline:
        before = cpu_seconds(tree(root))
        time.sleep(0.5)
        if cpu_seconds(tree(root)) - before <= below * 0.5:
            return


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, for an error message."""
    with suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    return ""
