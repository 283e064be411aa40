"""Live calls with an Idempotency-Key: one upstream call however often they are sent, and the same reply for all."""

import signal
import threading
from typing import Any

import pytest
from django.conf import settings

from apps.access.models import IdempotencyRecord
from tests.conftest import MakeKey, MakeRoute, database_url
from tests.gateway import Gateway
from tests.journeys.conftest import HELLO, Client, Rows
from tests.journeys.scripts import Hold
from tests.journeys.wire import Reply, assert_error, eventually, leave, send, together
from tests.time import age
from tests.upstream import Upstream, hang, ok, raw, status

pytestmark = pytest.mark.django_db(transaction=True)
CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"


def keyed(client: Client, model: str, key: str = "order-1", **fields: Any) -> Reply:
    return client.chat(model, headers={"Idempotency-Key": key}, **fields)


def begin_keyed(url: str, client: Client, model: str) -> Any:
    """The same, its reply left unread: the connection."""
    payload = {"model": model, "messages": HELLO}
    return send(url, "POST", CHAT, key=client.secret, payload=payload, headers={"Idempotency-Key": "order-1"})


def test_a_repetition_is_given_the_reply_of_the_first(
    client: Client, route: MakeRoute, upstream: Upstream, ledger: Rows
) -> None:
    model = route()
    upstream.script(model, ok("one 日本 \ud83d"), ok("two"))
    first = keyed(client, model)
    again, quoted = keyed(client, model), keyed(client, model, '"order-1"')
    assert first.status == again.status == quoted.status == 200
    assert first.body == again.body == quoted.body
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == quoted.headers["idempotent-replayed"] == "true"
    assert again.headers["content-type"] == first.headers["content-type"]
    assert first.request_id != again.request_id
    assert keyed(client, model, "order-2").json()["choices"][0]["message"]["content"] == "two"
    assert len(upstream.requests(model)) == len(ledger(model, 2)) == 2


def test_embeddings_are_repeated_as_well(client: Client, route: MakeRoute, upstream: Upstream) -> None:
    model = route()
    upstream.script(model, raw(b'{"data": [{"embedding": [0.5, 1.0]}], "usage": {"prompt_tokens": 3}}'))
    payload = {"model": model, "input": "hello"}
    headers = {"Idempotency-Key": "e"}
    first, again = [client.call("POST", EMBEDDINGS, payload=payload, headers=headers) for _ in range(2)]
    assert (first.status, first.body) == (200, again.body)
    assert again.headers["idempotent-replayed"] == "true"
    assert len(upstream.requests(model)) == 1


def test_another_body_is_refused(client: Client, route: MakeRoute, upstream: Upstream) -> None:
    model = route()
    assert keyed(client, model).status == 200
    assert_error(keyed(client, model, max_tokens=7), 422, "idempotency_key_reused")
    assert len(upstream.requests(model)) == 1


def test_a_failure_frees_the_key(client: Client, route: MakeRoute, upstream: Upstream) -> None:
    model = route()
    upstream.script(model, status(400), ok("better"))
    assert keyed(client, model).status == 400
    found = keyed(client, model, max_tokens=7)  # nor is it bound to its body
    assert (found.status, "idempotent-replayed" in found.headers) == (200, False)


def test_of_fifty_at_once_one_calls_the_upstream(client: Client, route: MakeRoute, upstream: Upstream) -> None:
    model, hold, refused = route(), Hold(), list[Reply]()
    upstream.script(model, hold.reply())

    def one(_: int) -> Reply:
        reply = keyed(client, model)
        if reply.status != 200:
            refused.append(reply)
        return reply

    replies = together(50, one, meanwhile=lambda: hold.until(refused, 49, most=1))
    assert len(refused) == 49
    for reply in refused:
        assert_error(reply, 409, "idempotency_in_progress")
        assert int(reply.headers["retry-after"]) >= 1
    [first] = [reply for reply in replies if reply.status == 200]
    assert keyed(client, model).body == first.body
    assert len(upstream.requests(model)) == 1


@pytest.mark.parametrize("key", ["order-1", '"'])
def test_a_stream_takes_no_key(client: Client, route: MakeRoute, upstream: Upstream, key: str) -> None:
    model = route()
    assert_error(keyed(client, model, key, stream=True), 400, "validation_error", param="Idempotency-Key")
    assert upstream.requests(model) == []


@pytest.mark.parametrize("key", ["", "x" * 256, '"a', '""'])
def test_what_is_no_key_is_refused(client: Client, route: MakeRoute, upstream: Upstream, key: str) -> None:
    model = route()
    assert_error(keyed(client, model, key), 400, "validation_error", param="Idempotency-Key")
    assert upstream.requests(model) == []


def test_a_key_belongs_to_its_project_and_its_route(
    client: Client, caller: Any, make_key: MakeKey, gateway: Gateway, route: MakeRoute, upstream: Upstream
) -> None:
    model = route()
    project = make_key()[0].project
    mine, colleague = [Client(gateway.url, make_key(project=project)[1]) for _ in range(2)]
    assert keyed(mine, model).status == 200
    assert keyed(colleague, model).headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in keyed(client, model).headers
    task = mine.chat(model, headers={"Idempotency-Key": "order-1", "Prefer": "respond-async"})
    assert (task.status, "idempotent-replayed" in task.headers) == (202, False)
    # The same address as the task's own, whichever way it was reached.
    payload = {"model": model, "messages": HELLO}
    same = mine.call("POST", "/v1/tasks/chat/completions", payload=payload, headers={"Idempotency-Key": "order-1"})
    assert (same.json()["task_id"], same.headers["idempotent-replayed"]) == (task.json()["task_id"], "true")
    assert keyed(mine, model).json()["object"] == "chat.completion"


def test_a_repetition_is_a_request_and_spends_nothing(caller: Any, route: MakeRoute, ledger: Rows) -> None:
    model, strict = route(), caller(rpm=3)
    replies = [keyed(strict, model) for _ in range(4)]
    assert [reply.status for reply in replies] == [200, 200, 200, 429]
    assert len(ledger(model)) == 1


def test_a_client_that_leaves_frees_its_key(client: Client, route: MakeRoute, upstream: Upstream) -> None:
    model, started, gone = route(), threading.Event(), threading.Event()
    upstream.script(model, hang(started, gone), ok())
    leaving = begin_keyed(client.url, client, model)
    assert started.wait(5)
    assert IdempotencyRecord.objects.exists()
    leave(leaving)
    assert gone.wait(3)
    assert eventually(lambda: not IdempotencyRecord.objects.exists(), within=5)
    assert keyed(client, model).status == 200


def test_a_process_that_dies_loses_its_keys_when_their_time_is_over(
    client: Client, route: MakeRoute, upstream: Upstream
) -> None:
    model, started = route(), threading.Event()
    upstream.script(model, hang(started), ok("after all"))
    doomed = Gateway({"REDRIVE_DATABASE_URL": database_url(), "REDRIVE_REDIS_URL": settings.REDRIVE.redis_url})
    connection = begin_keyed(doomed.url, client, model)
    assert started.wait(10)
    doomed.stop(signal.SIGKILL)
    connection.close()
    assert_error(keyed(client, model), 409, "idempotency_in_progress")
    age(IdempotencyRecord.objects.get(), seconds=31)
    assert keyed(client, model).json()["choices"][0]["message"]["content"] == "after all"


def test_a_process_that_stops_keeps_the_replies_of_what_it_ends(
    client: Client, route: MakeRoute, upstream: Upstream
) -> None:
    model, hold = route(), Hold()
    upstream.script(model, hold.reply("in the end"))
    stopping = Gateway({"REDRIVE_DATABASE_URL": database_url(), "REDRIVE_REDIS_URL": settings.REDRIVE.redis_url})
    connection = begin_keyed(stopping.url, client, model)
    assert eventually(lambda: hold.waiting, within=10)
    ending = threading.Thread(target=stopping.stop)
    ending.start()
    hold.release.set()
    assert connection.getresponse().status == 200
    connection.close()
    ending.join(20)
    assert keyed(client, model).headers["idempotent-replayed"] == "true"
