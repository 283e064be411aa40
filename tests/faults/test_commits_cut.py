"""The connection to Postgres breaks at a COMMIT: what was committed counts once, what was not is done again."""

from collections.abc import Iterator

import pytest

from tests.faults.conftest import Serve
from tests.faults.crew import CHAT, Crew, accept, task_id
from tests.faults.proxy import Proxy
from tests.faults.stores import Set, Stores
from tests.journeys.conftest import HELLO, Client
from tests.journeys.wire import eventually, together
from tests.upstream import Upstream

LOST = pytest.mark.parametrize("lost", ["request", "answer"])


@pytest.fixture
def proxy(stores: Stores) -> Iterator[Proxy]:
    """Before the faults' Postgres."""
    return Proxy(stores.run.database_url).start()


@LOST
@pytest.mark.parametrize("key", [None, "once"])
def test_at_the_accept(
    crew: Crew, stores: Stores, serve: Serve, mine: Set, proxy: Proxy, lost: str, key: str | None
) -> None:
    client = Client(serve(REDRIVE_DATABASE_URL=proxy.url).url, mine.plain)
    accept(client, mine.model)
    proxy.cut_commits(lost, marker=b'COPY "tasks_task" ')
    headers = {"Idempotency-Key": key} if key else None
    payload = {"model": mine.model, "messages": HELLO}
    replies = together(8, lambda _: client.call("POST", CHAT, payload=payload, headers=headers))
    assert proxy.made == 1
    assert [reply.status for reply in replies] == [202] * 8, [reply.body for reply in replies]
    tasks = {task_id(reply.body) for reply in replies}
    assert len(tasks) == (1 if key else 8)
    stored = stores.query(
        "SELECT count(*) FROM tasks_task t JOIN tasks_taskpayload p ON p.task_id = t.id WHERE p.body LIKE %s",
        f"%{mine.model}%",
    )
    assert stored == [(len(tasks) + 1,)]
    crew.worker()
    crew.until(tasks, "succeeded")


@LOST
def test_at_the_end_of_attempts(
    crew: Crew, stores: Stores, plain: Client, mine: Set, proxy: Proxy, upstream: Upstream, lost: str
) -> None:
    before = len(upstream.requests(mine.model))
    proxy.cut_commits(lost, marker=b'COPY "tasks_taskattempt" ', count=2)
    worker = crew.worker(REDRIVE_DATABASE_URL=proxy.url)
    tasks = accept(plain, mine.model, 10)
    rows = crew.until(tasks, "succeeded")
    # Each answer was paid for once, and is kept.
    assert set(rows.values()) == {("succeeded", 1, 0, 0)}
    assert len(upstream.requests(mine.model)) - before == 10
    assert eventually(lambda: proxy.made == 2, within=5)
    assert eventually(lambda: len(stores.rows(mine.model)) == len(upstream.requests(mine.model)), within=5)
    assert "batch_item_refused" not in worker.log.read_text()


@LOST
def test_at_a_claim(crew: Crew, plain: Client, mine: Set, proxy: Proxy, lost: str) -> None:
    tasks = accept(plain, mine.model, 10)
    proxy.cut_commits(lost, marker=b"WHERE queue = 'default' AND state IN")
    crew.worker(REDRIVE_DATABASE_URL=proxy.url)
    rows = crew.until(tasks, "succeeded")
    assert proxy.made == 1
    assert {row[2:] for row in rows.values()} == {(0, 0)}
