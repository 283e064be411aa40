"""A 202 is a promise: the gateway killed around the commit, Redis gone, frozen or emptied, the pool used up."""

from http.client import HTTPException

import pytest

from tests.faults.conftest import Serve
from tests.faults.crew import CHAT, Crew, accept, armed, task_id
from tests.faults.stores import Set, Stores
from tests.journeys.conftest import HELLO, Client
from tests.journeys.wire import Reply, assert_error, eventually, together

SOON = 3.0  # seconds: p99 below one is promised, with room


def post(client: Client, model: str, **headers: str) -> Reply:
    payload = {"model": model, "messages": HELLO}
    return client.call("POST", CHAT, payload=payload, headers=headers, timeout=20)


@pytest.mark.parametrize(("point", "stored"), [("enqueue.before_commit", 0), ("enqueue.after_commit", 1)])
def test_a_gateway_killed_while_it_accepts_and_asked_again_makes_one_task(
    crew: Crew, stores: Stores, serve: Serve, gateway: object, plain: Client, mine: Set, point: str, stored: int
) -> None:
    doomed = Client(serve(**armed(f"{point}:exit")).url, mine.plain)
    count = "SELECT count(*) FROM access_idempotencyrecord WHERE key = %s"
    with pytest.raises((HTTPException, ConnectionError)):
        post(doomed, mine.model, **{"Idempotency-Key": mine.model})
    assert stores.query(count, mine.model) == [(stored,)]
    reply = post(plain, mine.model, **{"Idempotency-Key": mine.model})
    assert reply.status == 202
    assert ("idempotent-replayed" in reply.headers) is bool(stored)
    crew.worker()
    crew.until([task_id(reply.body)], "succeeded")
    assert stores.query(count, mine.model) == [(1,)]


def test_a_gateway_killed_between_commit_and_ring_costs_a_second(
    crew: Crew, stores: Stores, serve: Serve, mine: Set
) -> None:
    crew.worker()
    doomed = Client(serve(**armed("enqueue.after_commit:exit")).url, mine.plain)
    with pytest.raises((HTTPException, ConnectionError)):
        post(doomed, mine.model)
    [(task,)] = stores.query("SELECT task_id FROM tasks_taskpayload WHERE body LIKE %s", f"%{mine.model}%")
    crew.until([task], "succeeded", within=SOON)


def test_accepting_is_quick_while_redis_is_frozen(crew: Crew, stores: Stores, plain: Client, mine: Set) -> None:
    worker = crew.worker()
    with stores.redis.frozen():
        replies = [reply for _ in range(5) for reply in together(20, lambda _: post(plain, mine.model))]
        assert {reply.status for reply in replies} == {202}
        assert max(reply.seconds for reply in replies) < SOON
        tasks = [task_id(reply.body) for reply in replies]
        crew.until(tasks, "succeeded")
    assert worker.lives


@pytest.mark.parametrize("how", ["away", "restarted empty", "flushed"])
def test_tasks_are_accepted_and_done_without_what_was_in_redis(
    crew: Crew, stores: Stores, plain: Client, mine: Set, how: str
) -> None:
    crew.worker()
    before = accept(plain, mine.model, 10)
    if how == "flushed":
        stores.empty_redis()
        after = accept(plain, mine.model, 10)
    else:
        with stores.redis.stopped():
            after = accept(plain, mine.model, 10) if how == "away" else []
            if how == "away":
                crew.until(before + after, "succeeded")
        after += accept(plain, mine.model, 10)
    crew.until(before + after, "succeeded")


@pytest.mark.parametrize("action", ["hang", "raise"])
def test_a_doorbell_that_is_stuck_keeps_nobody_waiting(crew: Crew, serve: Serve, mine: Set, action: str) -> None:
    client = Client(serve(**armed(f"doorbell.send:{action}")).url, mine.plain)
    crew.worker()
    replies = [post(client, mine.model) for _ in range(5)]
    assert max(reply.seconds for reply in replies) < SOON
    crew.until([task_id(reply.body) for reply in replies], "succeeded", within=2 * SOON)


def test_with_every_connection_taken_requests_wait_their_turn_or_are_told(crew: Crew, serve: Serve, mine: Set) -> None:
    small = {"REDRIVE_DATABASE_POOL_SIZE": "2"}
    client = Client(serve(**small).url, mine.plain)
    crew.worker("--slots", "100", **small)
    replies = together(60, lambda _: post(client, mine.model))
    assert {reply.status for reply in replies} <= {202, 503}
    tasks = [task_id(reply.body) for reply in replies if reply.status == 202]
    assert len(tasks) >= 30
    statuses = together(60, lambda n: client.call("GET", f"/v1/tasks/task_{tasks[n % len(tasks)].hex}").status)
    assert set(statuses) <= {200, 503}
    crew.until(tasks, "succeeded")
    assert eventually(lambda: post(client, mine.model).status == 202, within=5)


def test_without_postgres_nothing_is_accepted_and_the_client_is_told(
    crew: Crew, stores: Stores, plain: Client, mine: Set
) -> None:
    accept(plain, mine.model)
    with stores.postgres.stopped():
        reply = post(plain, mine.model, **{"Idempotency-Key": mine.model})
        assert_error(reply, 503, "service_unavailable")
        assert int(reply.headers["retry-after"]) >= 1
        assert reply.seconds < 3 * SOON
    assert eventually(lambda: post(plain, mine.model, **{"Idempotency-Key": mine.model}).status == 202, within=15)
    tasks = stores.query("SELECT task_id FROM tasks_taskpayload WHERE body LIKE %s", f"%{mine.model}%")
    assert len(tasks) == 2
    crew.worker()
    crew.until([task for (task,) in tasks], "succeeded")
