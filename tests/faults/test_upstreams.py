"""What an upstream does to a task: each of its ways to fail costs an attempt, or a wait, and no more."""

import asyncio
import json
from typing import Any

from aiohttp import web

from tests.faults.crew import CHAT, Crew, accept, task_id
from tests.faults.stores import Set, Stores
from tests.journeys.conftest import HELLO, Client
from tests.journeys.wire import eventually
from tests.upstream import Handler, Upstream, completion, hang, ok, raw, status


async def cut(request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
    """The connection ends within the answer."""
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"id": ')
    assert request.transport is not None
    request.transport.abort()
    return response


def slow(seconds: float) -> Handler:
    """A whole answer, late."""

    async def reply(_: web.Request, __: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.json_response(completion("late"))

    return reply


BROKEN = raw(b'{"choices": [')
WITH_ERROR = raw(b'{"error": {"message": "overloaded", "code": 500}}')
WAYS = {
    "cut": (cut, "failed"),
    "500": (status(500), "failed"),
    "429": (status(429, headers={"retry-after": "1"}), "rate_limited"),
    "503 with Retry-After": (status(503, headers={"retry-after": "1"}), "rate_limited"),
    "invalid JSON": (BROKEN, "failed"),
    "200 with an error": (WITH_ERROR, "failed"),
    "hanging": (hang(), "failed"),
}


def test_every_way_to_fail_once_costs_one_attempt(
    crew: Crew, stores: Stores, plain: Client, mine: Set, upstream: Upstream
) -> None:
    scripts = {way: [handler, ok(way)] for way, (handler, _) in WAYS.items()}

    async def by_way(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        replies = scripts[body["user"]]
        return await (replies.pop(0) if len(replies) > 1 else replies[0])(request, body)

    upstream.script(mine.soon, by_way)
    crew.worker()
    tasks = {way: accept(plain, mine.soon, user=way)[0] for way in WAYS}
    rows = crew.until(tasks.values(), "succeeded", "dead")
    for way, task in tasks.items():
        outcome = WAYS[way][1]
        assert crew.outcomes(task) == [outcome, "succeeded"], way
        assert rows[task] == ("succeeded", 2, 0, 1 if outcome == "failed" else 0), way
    # One row of the ledger for each request that reached the upstream.
    assert eventually(lambda: len(stores.rows(mine.soon)) == 2 * len(WAYS), within=5), stores.rows(mine.soon)


def test_a_slow_upstream_is_waited_for(crew: Crew, plain: Client, mine: Set, upstream: Upstream) -> None:
    upstream.script(mine.model, slow(3.0))  # longer than a lease lasts without renewal
    crew.worker()
    tasks = accept(plain, mine.model, 10)
    assert set(crew.until(tasks, "succeeded").values()) == {("succeeded", 1, 0, 0)}


def test_nul_and_lone_surrogates_among_a_hundred_answers_cost_nobody_anything(
    crew: Crew, stores: Stores, plain: Client, mine: Set, upstream: Upstream
) -> None:
    odd = raw(json.dumps(completion("\x00 and \ud800")).encode())

    async def some_odd(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return await (odd if body.get("user") == "odd" else ok())(request, body)

    upstream.script(mine.model, some_odd)
    tasks = accept(plain, mine.model, 50)
    reply = plain.call("POST", CHAT, payload={"model": mine.model, "messages": HELLO, "user": "odd"})
    tasks += [task_id(reply.body), *accept(plain, mine.model, 50)]
    crew.worker()
    assert set(crew.until(tasks, "succeeded").values()) == {("succeeded", 1, 0, 0)}
    shown = plain.call("GET", reply.json()["links"]["self"]).json()
    assert shown["result"]["content"] == "\x00 and \ud800"
