"""Workers and clocks on the faults' own stores, ten times as impatient as in production, and what became of tasks."""

import json
import signal
from collections import Counter
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import psycopg

from apps.tasks import verify
from tests.faults.nursery import Born
from tests.faults.stores import Stores
from tests.journeys.conftest import HELLO, Client
from tests.journeys.wire import eventually

TTL = 2.0  # seconds; in production 10
QUICK = {"REDRIVE_WORKER_TTL": str(TTL), "REDRIVE_WORKER_GRACE": "0.5", "REDRIVE_DATABASE_TIMEOUT": "1"}
CHAT = "/v1/tasks/chat/completions"


def armed(text: str) -> dict[str, str]:
    """The environment of a process with these failpoints."""
    return {"REDRIVE_FAILPOINTS": text, "REDRIVE_FAILPOINTS_ENABLED": "true"}


class Crew:
    """The processes that one test starts."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self._born: list[Born] = []

    def worker(self, *options: str, ready: bool = True, **environment: str) -> Born:
        """Start a worker, of all queues but quarantine unless options say another; ready: wait until it is."""
        born = self._bear("worker", *options, **environment)
        if ready:
            assert eventually(lambda: self.is_present(born), within=20), born.log.read_text()
        return born

    def clock(self, **environment: str) -> Born:
        """Start a clock."""
        return self._bear("clock", **environment)

    def is_present(self, worker: Born) -> bool:
        """Whether its sign of life is fresh."""
        return bool(
            self.stores.query("SELECT 1 FROM tasks_workerpresence WHERE pid = %s AND expires_at > now()", worker.pid)
        )

    def stop(self) -> None:
        """End all of them."""
        living = [born for born in self._born if born.lives]
        for born in living:
            born.send(signal.SIGCONT)
            born.send(signal.SIGTERM)
        for born in living:
            born.end(None)

    def _bear(self, *command: str, **environment: str) -> Born:
        self._born.append(Born({**self.stores.environment, **QUICK, **environment}, *command))
        return self._born[-1]

    def rows(self, ids: Iterable[UUID]) -> dict[UUID, tuple[Any, ...]]:
        """State, attempt, worker_losses and charged_failures of tasks."""
        found = self.stores.query(
            "SELECT id, state, attempt, worker_losses, charged_failures FROM tasks_task WHERE id = ANY(%s)", list(ids)
        )
        return {row[0]: row[1:] for row in found}

    def states(self, ids: Iterable[UUID]) -> Counter[str]:
        """How many of the tasks are in which state."""
        return Counter(row[0] for row in self.rows(ids).values())

    def until(self, ids: Iterable[UUID], *states: str, within: float = 20.0) -> dict[UUID, tuple[Any, ...]]:
        """Wait until all these tasks are in one of the states; their rows as above."""
        wanted = list(ids)
        assert eventually(lambda: set(self.states(wanted)) <= set(states), within=within), self.rows(wanted)
        return self.rows(wanted)

    def outcomes(self, task: UUID) -> list[str]:
        """Of its attempts."""
        found = self.stores.query("SELECT outcome FROM tasks_taskattempt WHERE task_id = %s ORDER BY number", task)
        return [outcome for (outcome,) in found]

    def become(self, ids: Iterable[UUID], kind: str) -> list[UUID]:
        """Change the kind of tasks that no worker has taken yet."""
        changed = self.stores.query(
            "UPDATE tasks_task SET kind = %s WHERE id = ANY(%s) AND state = 'pending' RETURNING id", kind, list(ids)
        )
        return [task for (task,) in changed]


def accept(client: Client, model: str, count: int = 1, **fields: Any) -> list[UUID]:
    """Have so many chats accepted; their ids."""
    payload = {"model": model, "messages": HELLO, **fields}
    replies = [client.call("POST", CHAT, payload=payload) for _ in range(count)]
    assert {reply.status for reply in replies} == {202}, replies[0].body
    return [task_id(reply.body) for reply in replies]


def task_id(body: bytes) -> UUID:
    """Of the reply that accepts a task."""
    return UUID(json.loads(body)["task_id"].removeprefix("task_"))


def broken(stores: Stores) -> dict[str, list[str]]:
    """The invariants that do not hold on these stores, with the rows that break them."""
    found = {}
    with psycopg.connect(stores.run.database_url) as connection:
        for invariant in verify._invariants:
            values = invariant.values() if invariant.values else None
            rows = connection.execute(invariant.query, values).fetchall()  # type: ignore[arg-type]
            if rows:
                found[f"{invariant.name} {invariant.words}"] = [row[0] for row in rows]
    return found
