"""PostgreSQL as a foreground child on loopback: made with initdb on the first start, with a generated password."""

import asyncio
import importlib.metadata
import os
import shutil
import signal
import tempfile
from pathlib import Path
from urllib.parse import quote

import psycopg

from apps.core.embedded import logs
from apps.core.embedded.child import spawn
from apps.core.embedded.postgres_place import WHEEL, Place, find_place
from apps.core.embedded.service import Launch, Run, Service, UpError

NAME, USER, DATABASE = "postgres", "redrive", "redrive"
UNFINISHED = ".postgres-"
OLD_SERVER_SECONDS = 30
PROBE_SECONDS = 10

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "random_page_cost": "1.1",
    "wal_compression": "on",
    "jit": "off",
    "log_timezone": "UTC",
    # The texts of statements hold those of clients, which belong in no log.
    "log_min_error_statement": "panic",
    "log_line_prefix": "%m [%p] ",
    "logging_collector": "off",
}


def database_url(port: int, password: str) -> str:
    """The URL of the embedded database."""
    return f"postgresql://{USER}:{quote(password, safe='')}@127.0.0.1:{port}/{DATABASE}"


def refuse_other_major(data: Path, ours: str) -> None:
    """Raises UpError when `data` was made by another major version of PostgreSQL than `ours` (such as "18.6.3")."""
    try:
        theirs = (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        return
    major = ours.split(".", maxsplit=1)[0]
    if theirs != major:
        raise UpError(
            f"the database in {data} was made by PostgreSQL {theirs}; this Redrive brings PostgreSQL {major}, which "
            "cannot read it.\n"
            "To keep the data: start the Redrive you had before (up --only postgres), dump it with its pg_dump and the "
            "database_url in up.json,\nmove the folder away, start this Redrive, restore the dump with psql.\n"
            "To start afresh: move the folder away."
        )


async def launch(run: Run) -> Launch:
    """Makes the database cluster if there is none, and says how to start the server. Raises UpError."""
    place = find_place(run.data_dir)
    run.facts["postgres_data"] = str(place.data)
    refuse_other_major(place.data, importlib.metadata.version(WHEEL))
    if not (place.data / "PG_VERSION").exists():
        await _initialise(run, place)
    await _wait_for_old_server(place.data)
    settings = {**SETTINGS, "port": str(run.ports[NAME])}
    options = tuple(part for name, value in settings.items() for part in ("-c", f"{name}={value}"))
    argv = (str(place.programs / "postgres"), "-D", str(place.data), *options)
    return Launch(argv, run.plain_environment(), cwd=Path("/"), user=place.user)


async def _initialise(run: Run, place: Place) -> None:
    """Runs initdb beside the final folder and moves the result there, so that a folder that exists is complete."""
    for left in place.data.parent.glob(f"{UNFINISHED}*"):  # of a start that was killed
        shutil.rmtree(left, ignore_errors=True)
    home = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=place.data.parent))
    password = home / "password"
    password.touch(mode=0o600)
    password.write_text(run.secrets["postgres_password"] + "\n")
    if place.user:
        for path in (home, password):
            os.chown(path, place.user.uid, place.user.gid)
    made = home / "data"
    where = (f"--pgdata={made}", f"--pwfile={password}", f"--username={USER}", "--auth=scram-sha-256")
    text = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    argv = (str(place.programs / "initdb"), *where, *text, "--no-instructions")
    initdb = Launch(argv, run.plain_environment(), cwd=Path("/"), user=place.user)
    log = logs.log_path(run.data_dir, NAME)
    process = await spawn(initdb, orphan_signal=signal.SIGKILL, log=log)
    try:
        if await process.wait() != 0:
            raise UpError(f"initdb failed. The end of {log}:\n{logs.last_lines(log)}")
        os.rename(made, place.data)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        shutil.rmtree(home, ignore_errors=True)


async def _wait_for_old_server(data: Path) -> None:
    """Waits for the server of a supervisor that was killed a moment ago: it is still writing its checkpoint."""
    for _ in range(OLD_SERVER_SECONDS * 20):
        if not _is_served(data):
            return
        await asyncio.sleep(1 / 20)


def _is_served(data: Path) -> bool:
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
        os.kill(pid, 0)
        return "postgres" in os.readlink(f"/proc/{pid}/exe")  # else the number belongs to another program by now
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False


async def is_ready(run: Run) -> bool:
    """Whether the database answers; makes it on the first start."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await _make_database(run.database_url.rsplit("/", 1)[0] + "/postgres")
    except (psycopg.OperationalError, OSError, TimeoutError) as error:
        if "password authentication failed" in str(error):
            raise UpError(
                f"the database in {run.facts['postgres_data']} does not know the password in "
                f"{run.data_dir}/secrets.json. Restore that file, or move the database away to start afresh."
            ) from None
        return False
    return True


async def _make_database(maintenance_url: str) -> None:
    # Asked of the server's own database: a connection to one that is missing fails without saying so in a code.
    async with await psycopg.AsyncConnection.connect(maintenance_url, autocommit=True) as connection:
        found = await connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE])
        if found.rowcount == 0:
            await connection.execute(f"CREATE DATABASE {DATABASE}")


SERVICE = Service(
    name=NAME,
    launch=launch,
    is_ready=is_ready,
    restarts=False,
    start_seconds=300,  # after a power cut it replays its log first
    stop_signal=signal.SIGINT,
    stop_seconds=30,
    impatient_signal=signal.SIGQUIT,
    orphan_signal=signal.SIGINT,  # it takes its own children with it, which SIGKILL would leave behind for a while
)
