"""Background work as a client sees it: accepted, polled, waited for, cancelled, listed; dead ones with their error."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from apps.completions.models import LedgerEntry
from apps.dead_letters import triage
from apps.dead_letters.errors import LetterIsDecided
from apps.dead_letters.models import DeadLetter
from apps.tasks.models import Task
from tests.conftest import MakeKey, MakeRoute
from tests.gateway import Gateway
from tests.journeys.conftest import HELLO, Client
from tests.journeys.wire import Reply, assert_error
from tests.upstream import Upstream, hang, raw, status
from tests.worker import Child

pytestmark = pytest.mark.django_db(transaction=True)
CHAT, EMBEDDINGS = "/v1/tasks/chat/completions", "/v1/tasks/embeddings"


def post(client: Client, path: str, headers: dict[str, str] | None = None, **payload: Any) -> Reply:
    return client.call("POST", path, payload=payload, headers=headers)


def ended(client: Client, reply: Reply, wait: int = 20) -> dict[str, Any]:
    """The status of an accepted task once it has ended."""
    found: dict[str, Any] = client.call("GET", f"{reply.json()['links']['self']}?wait={wait}").json()
    return found


def test_a_chat_in_the_background_gives_the_result(
    worker: Child, client: Client, route: MakeRoute, upstream: Upstream
) -> None:
    model = route(input_usd_per_million=1, output_usd_per_million=1)
    reply = post(client, CHAT, model=model, messages=HELLO, priority="high", metadata={"a": "b"})
    body = reply.json()
    assert reply.status == 202
    assert reply.headers["location"] == body["links"]["self"] == f"/v1/tasks/{body['task_id']}"
    assert reply.headers["retry-after"] == "1"
    assert (body["status"], body["kind"], body["priority"]) == ("pending", "chat_completion", "high")
    found = ended(client, reply)
    assert found["status"] == "succeeded"
    assert (found["metadata"], found["error"], found["attempts"], found["dead_letter"]) == ({"a": "b"}, None, 1, None)
    result = found["result"]
    assert (result["status"], result["model"]) == ("completed", model)
    assert result["usage"].keys() == {"input_tokens", "output_tokens"}
    assert result["response"]["object"] == "chat.completion"
    assert result["content"] == result["response"]["choices"][0]["message"]["content"]
    sent = upstream.requests(model)[0].body
    assert not {"priority", "callback_url", "metadata", "deadline_seconds"} & sent.keys()
    row = LedgerEntry.objects.get(model=model)
    assert (row.outcome, row.request_id) == ("succeeded", reply.request_id)
    attempts = client.call("GET", f"{body['links']['self']}/attempts").json()["data"]
    assert [(one["number"], one["outcome"]) for one in attempts] == [(1, "succeeded")]


def test_embeddings_in_the_background(worker: Child, client: Client, route: MakeRoute, upstream: Upstream) -> None:
    model = route()
    upstream.script(model, raw(b'{"data": [{"embedding": [0.5, 1.0]}], "usage": {"prompt_tokens": 3}}'))
    found = ended(client, post(client, EMBEDDINGS, model=model, input="hello"))
    assert (found["status"], found["error"]) == ("succeeded", None)
    assert found["result"]["response"]["data"][0]["embedding"] == [0.5, 1.0]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
def test_a_client_that_would_rather_not_wait_need_not(client: Client, route: MakeRoute, path: str) -> None:
    payload = {"messages": HELLO} if "chat" in path else {"input": "x"}
    reply = post(client, path, {"Prefer": "respond-async"}, model=route(), **payload)
    assert (reply.status, reply.json()["status"]) == (202, "pending")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("wait=10, Respond-Async; x=y", 202),
        ('respond-async="true"', 202),
        ("xrespond-async", 200),
        ("respond-asyncx", 200),
        ('x="respond-async"', 200),
        ("x=respond-async", 200),
    ],
)
def test_only_the_whole_preference_counts(header: str, status: int, client: Client, route: MakeRoute) -> None:
    reply = post(client, "/v1/chat/completions", {"Prefer": header}, model=route(), messages=HELLO)
    assert reply.status == status


def test_a_task_that_fails_for_good_is_dead_with_a_letter_and_can_be_redriven(
    worker: Child, client: Client, route: MakeRoute, upstream: Upstream
) -> None:
    model = route()
    upstream.script(model, status(400, {"error": {"message": "no such thing"}}), status(400))
    found = ended(client, post(client, CHAT, model=model, messages=HELLO))
    assert (found["status"], found["error"]["code"], found["attempts"]) == ("dead", "model_error", 1)
    letter = DeadLetter.objects.get(task_id=Task.objects.get(pk=found["task_id"].removeprefix("task_")).pk)
    assert found["dead_letter"] == {"id": f"letter_{letter.pk.hex}", "state": "open"}
    assert letter.group.code == "model_error"
    triage.redrive(letter.pk, reason="mended")
    again = ended(client, post_like(found))
    assert (again["status"], again["dead_letter"]["state"], again["attempts"]) == ("dead", "open", 2)
    with pytest.raises(LetterIsDecided):
        triage.discard(letter.pk, reason="too late")
    triage.discard(DeadLetter.objects.get(task_id=letter.task_id, state="open").pk, reason="hopeless")


def post_like(found: dict[str, Any]) -> Any:
    """Something with the links of a known task."""

    class Known:
        def json(self) -> dict[str, Any]:
            return found

    return Known()


def test_a_running_task_is_cancelled(worker: Child, client: Client, route: MakeRoute, upstream: Upstream) -> None:
    model, started, gone = route(), threading.Event(), threading.Event()
    upstream.script(model, hang(started, gone))
    task = post(client, CHAT, model=model, messages=HELLO).json()
    assert started.wait(10)
    asked = client.call("DELETE", task["links"]["self"])
    assert (asked.status, asked.json()["cancel_requested"]) == (202, True)
    assert gone.wait(3)
    began = time.monotonic()
    found = client.call("GET", f"{task['links']['self']}?wait=10").json()
    assert found["status"] == "cancelled"
    assert time.monotonic() - began < 3
    assert client.call("POST", task["links"]["cancel"]).status == 200


def test_a_finished_task_cannot_be_cancelled(worker: Child, client: Client, route: MakeRoute) -> None:
    reply = post(client, CHAT, model=route(), messages=HELLO)
    ended(client, reply)
    assert_error(client.call("DELETE", reply.json()["links"]["self"]), 409, "conflict")


def test_the_same_key_from_fifty_at_once_makes_one_task(client: Client, route: MakeRoute) -> None:
    model = route()

    def send(_: int) -> Reply:
        return post(client, CHAT, {"Idempotency-Key": "order-1"}, model=model, messages=HELLO)

    with ThreadPoolExecutor(50) as pool:
        replies = list(pool.map(send, range(50)))
    assert {reply.status for reply in replies} == {202}
    assert len({reply.json()["task_id"] for reply in replies}) == 1
    assert sum("idempotent-replayed" in reply.headers for reply in replies) == 49
    other = post(client, CHAT, {"Idempotency-Key": '"order-1"'}, model=model, messages=[*HELLO, *HELLO])
    assert_error(other, 422, "idempotency_key_reused")
    assert post(client, CHAT, {"Idempotency-Key": "order-2"}, model=model, messages=HELLO).status == 202


@pytest.mark.parametrize(
    ("path", "payload", "param"),
    [
        ("/v1/tasks", {"kind": "nothing", "args": {}}, "kind"),
        ("/v1/tasks", {"kind": "chat_completion", "args": {"messages": []}}, "args.messages"),
        ("/v1/tasks", {"kind": "chat_completion", "args": {"messages": HELLO}, "extra": 1}, "extra"),
        (CHAT, {"messages": HELLO, "deadline_seconds": 0}, "deadline_seconds"),
        (CHAT, {"messages": HELLO, "deadline_seconds": -5}, "deadline_seconds"),
        (CHAT, {"messages": HELLO, "deadline_seconds": True}, "deadline_seconds"),
        (CHAT, {"messages": HELLO, "deadline_seconds": "60"}, "deadline_seconds"),
        (CHAT, {"messages": HELLO, "priority": "urgent"}, "priority"),
        (CHAT, {"messages": HELLO, "metadata": {"a": 5}}, "metadata.a"),
        (CHAT, {"messages": HELLO, "nonsense": 1}, "nonsense"),
        (CHAT, {"messages": HELLO, "callback_url": "http://127.0.0.1/"}, "callback_url"),
        (CHAT, {"messages": HELLO, "metadata": {"a": "\0"}}, "metadata.a"),
        (EMBEDDINGS, {"input": [], "model": "x"}, "input"),
    ],
)
def test_what_cannot_be_done_is_not_accepted(
    path: str, payload: dict[str, Any], param: str, client: Client, route: MakeRoute
) -> None:
    if path != "/v1/tasks":
        payload = {"model": route(), **payload}
    before = Task.objects.count()
    reply = post(client, path, **payload)
    assert reply.status == 400
    assert reply.error["param"] == param
    assert Task.objects.count() == before


@pytest.mark.parametrize("path", [CHAT, "/v1/tasks"])
def test_both_doors_refuse_what_a_live_call_would_refuse(
    path: str, client: Client, caller: Callable[..., Client], route: MakeRoute
) -> None:
    def ask(by: Client, **args: Any) -> Reply:
        args = {"messages": HELLO, **args}
        return post(by, path, **(args if path == CHAT else {"kind": "chat_completion", "args": args}))

    model = route()
    assert_error(ask(client, model="nothing-of-the-kind"), 404, "model_not_found", param="model")
    narrow = caller(allowed_models=["other-*"])
    assert_error(ask(narrow, model=model), 403, "permission_denied", param="model")
    assert_error(ask(client, model=model, nonsense=1), 400, "validation_error", param="nonsense")
    assert Task.objects.count() == 0


def test_arguments_named_as_a_wish_are_not_taken_for_one(client: Client, route: MakeRoute) -> None:
    args = {"model": route(), "messages": HELLO, "metadata": {"of": "openai"}}
    task = post(client, "/v1/tasks", kind="chat_completion", args=args).json()
    assert client.call("GET", task["links"]["self"]).json()["metadata"] == {}


def test_the_user_in_the_body_has_a_bucket_for_tasks_too(caller: Callable[..., Client], route: MakeRoute) -> None:
    client, model = caller(limits={"end_user_requests_per_minute": 1}), route()
    statuses = [post(client, CHAT, model=model, messages=HELLO, user="bob").status for _ in range(3)]
    assert statuses == [202, 429, 429]


@pytest.mark.parametrize("query", ["wait=-1", "wait=61", "wait=x", "wait=nan"])
def test_an_absurd_wait_is_refused(query: str, client: Client, route: MakeRoute) -> None:
    task = post(client, CHAT, model=route(), messages=HELLO).json()
    assert_error(client.call("GET", f"{task['links']['self']}?{query}"), 400, "validation_error", param="wait")


def test_a_list_is_paged_and_narrowed(client: Client, route: MakeRoute) -> None:
    model = route()
    made = [
        post(client, CHAT, model=model, messages=HELLO, metadata={"n": str(number % 2)}, priority="low").json()[
            "task_id"
        ]
        for number in range(5)
    ]
    first = client.call("GET", "/v1/tasks?limit=3").json()
    second = client.call("GET", f"/v1/tasks?limit=3&after={first['last_id']}").json()
    assert [one["task_id"] for one in (*first["data"], *second["data"])] == made[::-1]
    assert (first["has_more"], second["has_more"]) == (True, False)
    odd = client.call("GET", "/v1/tasks?metadata[n]=1&priority=low").json()["data"]
    assert [one["task_id"] for one in odd] == [made[3], made[1]]
    assert client.call("GET", "/v1/tasks?priority=high").json()["data"] == []
    post(client, CHAT, model=model, messages=HELLO, metadata={'x"n': "1"})
    assert len(client.call("GET", "/v1/tasks?metadata[n]=1").json()["data"]) == 2
    now = time.time()
    for narrowed, count in ((f"created_after={now - 60}", 6), (f"created_before={now - 60}", 0)):
        assert len(client.call("GET", f"/v1/tasks?{narrowed}").json()["data"]) == count
    for query, param in (
        ("after=nonsense", "after"),
        ("status=odd", "status"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("created_after=soon", "created_after"),
        ("priority=x", "priority"),
        ("statu=dead", "statu"),
        ("kind=a%00b", "kind"),
        ("metadata[a]=%00", "metadata[a]"),
        ("metadata[]=x", "metadata[]"),
        ("&".join(f"metadata[{number}]=x" for number in range(17)), "metadata"),
    ):
        assert_error(client.call("GET", f"/v1/tasks?{query}"), 400, "validation_error", param=param)


def test_the_tasks_of_another_project_do_not_exist(
    client: Client, route: MakeRoute, gateway: Gateway, make_key: MakeKey
) -> None:
    task = post(client, CHAT, model=route(), messages=HELLO).json()
    stranger = Client(gateway.url, make_key()[1])
    for method, path in (("GET", ""), ("GET", "/attempts"), ("DELETE", ""), ("POST", "/cancel")):
        assert_error(stranger.call(method, f"{task['links']['self']}{path}"), 404, "not_found")
    assert stranger.call("GET", "/v1/tasks").json()["data"] == []
    assert client.call("GET", task["links"]["self"]).json()["status"] in {"pending", "running"}
