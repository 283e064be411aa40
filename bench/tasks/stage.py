"""Starts what the benchmarks of tasks need: the processes of `manage.py up`, and the scripted upstream."""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from bench import process, servers

SLOW = 1000  # milliseconds of the slow upstream
MODELS = {0: "bench-model", SLOW: f"bench-model@{SLOW}"}  # the scripted upstream reads its delay from the name
TABLES = (  # that a task writes
    "tasks_task",
    "tasks_taskpayload",
    "tasks_taskattempt",
    "tasks_taskresult",
    "completions_ledgerentry",
    "access_idempotencyrecord",
)
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


@dataclass
class Stage:
    """What runs. `up` is the content of up.json, `key` an API key without limits that matter, named `key_name`."""

    folder: Path
    up: dict[str, Any]
    upstream: str
    key: str
    key_name: str

    @property
    def database_url(self) -> str:
        """Redrive's own database."""
        return str(self.up["database_url"])

    def pid(self, name: str) -> int:
        """The process `name` of `up`."""
        return int(servers.read_up(self.folder / "data" / "up.json")["pids"][name])

    def make_database(self, name: str) -> str:
        """An empty database on the same server; its URL."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return urlunsplit(urlsplit(self.database_url)._replace(path=f"/{name}"))

    def broker_url(self, number: int) -> str:
        """Another database of the same Valkey."""
        return urlunsplit(urlsplit(str(self.up["redis_url"]))._replace(path=f"/{number}"))

    def log(self, name: str) -> Path:
        """Where a process writes."""
        return self.folder / "log" / f"{name}.log"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to run."""
    folder = process.REPOSITORY / ".redrive-bench" / "tasks"
    parser.add_argument("--folder", type=Path, default=folder, help="logs, data, venv (.redrive-bench/tasks)")
    parser.add_argument("--venv", type=Path, help="folder of the rivals' environment (FOLDER; made when absent)")
    parser.add_argument("--readme", action="store_true", help="replace the results in bench/README.md")


@contextmanager
def start(folder: Path, *, only: str = "postgres,valkey,web,clock,worker") -> Iterator[Stage]:
    """Everything but the rivals, without tasks of an earlier run; stopped at the end. Raises servers.StartError."""
    folder = folder.resolve()
    data = folder / "data"
    with ExitStack() as stack:
        port = servers.free_port()
        upstream = _start(
            [sys.executable, "-m", "bench.upstream", "--port", str(port)], folder / "log" / "upstream.log"
        )
        stack.callback(process.stop, upstream)
        began = time.time()
        log = folder / "log" / "up.log"
        command = [sys.executable, "manage.py", "up", "--only", only, "--no-model"]
        up = _start([*command, "--data-dir", str(data), "--port", str(servers.free_port())], log)
        stack.callback(process.stop, up, patience=70.0)
        found = servers.wait_for_up(data / "up.json", up, log, began, needed=only.rsplit(",", maxsplit=1)[-1])
        url = f"http://127.0.0.1:{port}/v1"
        if "web" not in only:  # which makes the database
            yield Stage(folder, found, url, "", "")
            return
        servers.manage(data, "add_provider", "bench", "--base-url", url, "--models", ",".join(MODELS.values()))
        with psycopg.connect(str(found["database_url"])) as connection:
            connection.execute(f"TRUNCATE {', '.join(TABLES)}")
        key_name = f"bench-{int(began)}"
        key = servers.manage(data, "create_api_key", key_name, "--rpm", "100000000")
        yield Stage(folder, found, url, key, key_name)


def _start(command: list[str], log: Path) -> Any:
    return process.start(command, cpu=None, log=log)


def refuse_unless_durable(database_url: str) -> str:
    """The settings without which a COMMIT promises nothing, as text; raises StartError where one is off."""
    with psycopg.connect(database_url) as connection:
        seen = {name: str(connection.execute(f"SHOW {name}").fetchone()[0]) for name in DURABLE}  # type: ignore[index]
    if seen != DURABLE:
        raise servers.StartError(f"Postgres does not keep what it commits: {seen}")
    return ", ".join(f"{name}={value}" for name, value in seen.items())
