"""The nouns of `up`: Run (what one start decided), Service (a process to keep), Step (work to do once), Launch."""

import os
import re
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
PLAIN = re.compile(r"PATH|HOME|TZ|LANG|LC_\w+|LD_LIBRARY_PATH|PYTHON\w+|VIRTUAL_ENV")
"""Environment variables that every child gets."""


class UpError(Exception):
    """Redrive cannot start or go on; the message says why and what to do, for the person who typed `up`."""


@dataclass
class Run:
    """One start of `up`: what was chosen before anything ran, and what became known since."""

    data_dir: Path
    names: frozenset[str]
    """The processes to keep, by name."""
    ports: Mapping[str, int]
    """Process name to TCP port."""
    secrets: dict[str, Any]
    """The content of secrets.json."""
    database_url: str
    redis_url: str
    host: str = "127.0.0.1"
    """The IP address on which the web server listens."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Found out while starting: `postgres_data` (folder), `admin_password` (valid one, or "")."""

    @property
    def web_host(self) -> str:
        """A host under which this machine reaches the web server, ready for a URL."""
        address = ip_address(self.host)
        if address.is_unspecified:  # it listens everywhere, so here too
            return "127.0.0.1" if address.version == 4 else "[::1]"
        return f"[{address}]" if address.version == 6 else str(address)

    @property
    def url(self) -> str:
        """The web server's address without a path, or "" when it is not among the names."""
        return f"http://{self.web_host}:{self.ports['web']}" if "web" in self.names else ""

    @property
    def model_url(self) -> str:
        """The base URL of the local model, or "" when it is not among the names."""
        return f"http://127.0.0.1:{self.ports['model']}/v1" if "model" in self.names else ""

    def plain_environment(self) -> dict[str, str]:
        """Only what any program needs: for those that are not Redrive's own and need none of its secrets."""
        return {name: value for name, value in os.environ.items() if PLAIN.fullmatch(name)}

    def environment(self) -> dict[str, str]:
        """The environment of Redrive's own processes. What the person set wins over what was generated."""
        ours = {
            "REDRIVE_SECRET_KEY": self.secrets["secret_key"],
            "REDRIVE_ENCRYPTION_KEYS": ",".join(self.secrets["encryption_keys"]),
        }
        given = {name: value for name, value in os.environ.items() if value or name not in ours}
        return {
            **ours,
            **given,
            "REDRIVE_DATA_DIR": str(self.data_dir),
            "REDRIVE_DATABASE_URL": self.database_url,
            "REDRIVE_REDIS_URL": self.redis_url,
            "PYTHONUNBUFFERED": "1",
        }


@dataclass(frozen=True)
class User:
    """Another user of this machine, to start a process as."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Launch:
    """How to start one process, now."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: Path = ROOT
    user: User | None = None
    """None: the user who runs `up`."""


@dataclass(frozen=True)
class Service:
    """A process that `up` keeps alive. One entry of the catalogue is all it takes to add one."""

    name: str
    launch: Callable[[Run], Awaitable[Launch]]
    """Prepares the ground (files, folders) and says what to execute; called again before each restart."""
    is_ready: Callable[[Run], Awaitable[bool]]
    """Asked every 50 ms after the start until it says yes."""
    after: tuple[str, ...] = ()
    """Entries that must be ready before this one starts; those that are not part of the run do not count."""
    listens: bool = True
    """Whether it gets a TCP port of its own (`run.ports`)."""
    restarts: bool = True
    """False: without it nothing can go on, so its end stops everything."""
    start_seconds: float = 60
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10
    """How long it may take to stop before it is killed."""
    impatient_signal: signal.Signals = signal.SIGKILL
    """What ends it when stopping takes too long, or the person pressed Ctrl-C twice."""
    orphan_signal: signal.Signals = signal.SIGKILL
    """What it gets from the kernel when the supervisor itself was killed."""


@dataclass(frozen=True)
class Step:
    """Work that is done once during a start, between services; named in `after` like a service."""

    name: str
    act: Callable[[Run, Callable[[], Awaitable[None]]], Awaitable[None]]
    """Gets the run and a gate to await: it opens when everything in `after` is ready."""
    needed_by: tuple[str, ...]
    """The services of which at least one must be part of the run for the step to be done."""
    after: tuple[str, ...] = ()


Entry = Service | Step
