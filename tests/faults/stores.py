"""Postgres and Valkey of the faults' own, started without a supervisor: it would not let them be stopped."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psutil
import psycopg
from redis import Redis

from apps.core.embedded import data_folder, plan, postgres, valkey
from apps.core.embedded.lifeline import lifeline
from apps.core.embedded.service import Launch, Run, Service
from tests.journeys.wire import eventually

ROOT = Path(__file__).resolve().parents[2]
SETS = 80
FORGOTTEN: tuple[LiteralString, ...] = (
    "tasks_task", "tasks_taskpayload", "tasks_taskattempt", "tasks_taskresult", "tasks_workerpresence",
    "dead_letters_deadletter", "dead_letters_failuregroup", "dead_letters_grouptally", "dead_letters_groupkey",
    "dead_letters_bulkoperation", "dead_letters_bulkitem", "dead_letters_bulkslot", "access_idempotencyrecord",
)  # fmt: skip

# Each set: a route with a price of a cent an output token, one that waits a second for its upstream, and keys:
# unlimited, strict, with a budget, with one slot.
SETUP = """
import json, os
from apps.access import keys
from apps.access.models import Project
from apps.providers.models import ModelRoute, Provider, Upstream
from apps.tasks.models import RetryPolicy
def key(project, **limits):
    return keys.create(project=project, name="test", limits={"requests_per_minute": 100_000, **limits})[1]
provider = Provider.objects.create(name="scripted", base_url=os.environ["UPSTREAM"], api_key="sk-upstream")
impatient = Provider.objects.create(
    name="impatient", base_url=os.environ["UPSTREAM"], api_key="sk-upstream", total_timeout=1, breaker_failures=99
)
RetryPolicy.objects.create(kind="chat_completion", base=0.1, cap=0.2)
made = []
for n in range(int(os.environ["SETS"])):
    project, model = Project.objects.create(name=f"p{n}"), f"fault-{os.urandom(4).hex()}"
    route = ModelRoute.objects.create(public_name=model, input_usd_per_million=0, output_usd_per_million=10_000)
    Upstream.objects.create(route=route, provider=provider, model=model)
    soon = ModelRoute.objects.create(public_name=f"{model}-soon")
    Upstream.objects.create(route=soon, provider=impatient, model=f"{model}-soon")
    made.append({"model": model, "soon": f"{model}-soon", "plain": key(project),
                 "strict": key(project, requests_per_minute=10),
                 "poor": key(project, monthly_budget_usd="0.10"), "single": key(project, concurrency=1)})
print(json.dumps(made))
"""


@dataclass
class Set:
    """What one test uses: routes and keys: without limits, 10 requests a minute, 10 cents a month, one at a time."""

    model: str
    soon: str
    plain: str
    strict: str
    poor: str
    single: str


@dataclass
class Store:
    """One server process."""

    service: Service
    run: Run
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        launch: Launch = asyncio.run(_made(self.service.launch(self.run)))
        identity: dict[str, Any] = {}
        if launch.user is not None:
            identity = {"user": launch.user.uid, "group": launch.user.gid, "extra_groups": []}
        log = self.run.data_dir / "log" / f"{self.service.name}.log"
        with log.open("ab") as output, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forks in a process with threads, as its author knows
            self.process = subprocess.Popen(
                launch.argv,
                cwd=launch.cwd,
                env=dict(launch.environment),
                stdout=output,
                stderr=output,
                preexec_fn=lifeline(self.service.orphan_signal),
                **identity,
            )
        ready = eventually(lambda: asyncio.run(_made(self.service.is_ready(self.run))), within=60, every=0.05)
        assert ready, log.read_text()

    def stop(self) -> None:
        """Stop it at once, without its taking leave of anybody."""
        if self.process is not None:
            self._signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGQUIT if self.service.name == "postgres" else signal.SIGKILL)
            self.process.wait(30)
            self.process = None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It does not run, and nobody listens at its port."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It holds its connections and answers nothing."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def away(self, how: str) -> Any:
        """`stopped` or `frozen`."""
        ways: dict[str, Callable[[], Any]] = {"stopped": self.stopped, "frozen": self.frozen}
        return ways[how]()

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        parent = psutil.Process(self.process.pid)
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


class Stores:
    """Both stores, with the schema and the sets of routes and keys in them."""

    def __init__(self, upstream_url: str) -> None:
        folder = Path(tempfile.mkdtemp(prefix="redrive-faults-"))
        folder.chmod(0o711)  # as root, Postgres runs as nobody, who must reach its data
        self.folder = data_folder.make(folder / "data")
        options = plan.Options(data_dir=self.folder, only=("postgres", "valkey"))
        self.run = plan.make_run(options, self.folder, environ={})
        self.postgres, self.redis = Store(postgres.SERVICE, self.run), Store(valkey.SERVICE, self.run)
        self.environment = {
            "REDRIVE_DATABASE_URL": self.run.database_url,
            "REDRIVE_REDIS_URL": self.run.redis_url,
            "REDRIVE_DATA_DIR": str(self.folder),
        }
        self.postgres.start()
        self.redis.start()
        self.manage("migrate", "-v0")
        made = self.manage("shell", "-v0", "-c", SETUP, UPSTREAM=upstream_url, SETS=str(SETS))
        self._sets = [Set(**each) for each in json.loads(made.splitlines()[-1])]

    def next_set(self) -> Set:
        """One that no test has used."""
        return self._sets.pop()

    def rows(self, model: str) -> list[str]:
        """The outcomes in the ledger of a model's requests."""
        found = self.query("SELECT outcome FROM completions_ledgerentry WHERE model = %s", model)
        return [outcome for (outcome,) in found]

    def query(self, statement: LiteralString, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement; what it changes is committed."""
        with psycopg.connect(self.run.database_url) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def forget_tasks(self) -> None:
        """Delete them all: what one test leaves must not be in the way of the next."""
        for table in FORGOTTEN:  # not TRUNCATE: its locks and those of the clock wait for one another
            self.query(f"DELETE FROM {table}")

    def empty_redis(self) -> None:
        """FLUSHALL."""
        with Redis.from_url(self.run.redis_url) as client:
            client.flushall()

    def manage(self, *arguments: str, **environment: str) -> str:
        """What `manage.py` prints."""
        command = [sys.executable, "manage.py", *arguments]
        env = {**os.environ, **self.environment, **environment}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stop(self) -> None:
        """Stop both."""
        self.redis.stop()
        self.postgres.stop()


async def _made(work: Coroutine[Any, Any, Any]) -> Any:
    return await work
