"""Tasks watched and called off over a websocket: the same events as over HTTP, from any point, of one's own project."""

import threading
from typing import Any

import pytest

from tests.conftest import MakeKey, MakeRoute
from tests.gateway import Gateway
from tests.journeys.conftest import HELLO, Client, worker
from tests.journeys.wire import frames
from tests.streaming.conftest import Dial, Json, Socket
from tests.upstream import Upstream, hang, stream
from tests.worker import Child

__all__ = ["worker"]
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def mine(door: Gateway, make_key: MakeKey) -> Client:
    """A caller over HTTP; its socket is `ready(mine.secret)`."""
    return Client(door.url, make_key()[1])


def accepted(client: Client, model: str, **fields: Any) -> str:
    """The id of a new chat task."""
    payload = {"model": model, "messages": HELLO, **fields}
    body: Json = client.call("POST", "/v1/tasks/chat/completions", payload=payload).json()
    return str(body["task_id"])


def followed(socket: Socket, stream_id: str) -> list[Json]:
    """The events of a subscription until one that holds the whole task, which is the last."""
    found: list[Json] = []
    while "task" not in (found[-1] if found else {}):
        message = socket.hear()
        assert (message["type"], message["stream_id"]) == ("task.event", stream_id), message
        assert message["sequence_number"] == message["event"]["sequence_number"]
        found.append(message["event"])
    return found


def subscribe(socket: Socket, stream_id: str, task_id: str, **more: Any) -> None:
    socket.say(type="task.subscribe", stream_id=stream_id, task_id=task_id, **more)


def test_events_are_those_of_server_sent_events_from_any_point(
    worker: Child, ready: Dial, mine: Client, route: MakeRoute, upstream: Upstream
) -> None:
    model = route()
    upstream.script(model, stream("Hel", "lo ", "wor", "ld", every=0.1))
    socket, task = ready(mine.secret), accepted(mine, model, stream=True)
    subscribe(socket, "t", task)
    events = followed(socket, "t")
    assert [one["status"] for one in events if one["type"] == "task.state"] == ["pending", "running", "succeeded"]
    assert "".join(one["text"] for one in events if one["type"] == "task.text") == "Hello world"
    assert events == frames(mine.call("GET", f"/v1/tasks/{task}/events").body)
    for place in (0, 2, len(events) - 2):
        subscribe(socket, "t", task, starting_after=events[place]["sequence_number"])
        assert followed(socket, "t") == events[place + 1 :]
    socket.create("c", model)  # beside a completion, and after all
    assert socket.until("completion.completed", "c")


def test_a_running_task_is_cancelled_and_its_watcher_sees_it(
    worker: Child, ready: Dial, mine: Client, route: MakeRoute, upstream: Upstream
) -> None:
    model, started, gone = route(), threading.Event(), threading.Event()
    upstream.script(model, hang(started, gone))
    socket, task = ready(mine.secret), accepted(mine, model)
    subscribe(socket, "t", task)
    assert started.wait(10)
    socket.say(type="task.cancel", task_id=task)
    assert gone.wait(3)
    assert followed(socket, "t")[-1]["task"]["status"] == "cancelled"
    socket.say(type="task.cancel", task_id=task)  # again: no error
    socket.say(type="ping")
    assert socket.hear()["type"] == "pong"


def test_what_cannot_be_watched_or_cancelled_is_an_error_and_the_socket_lives_on(
    ready: Dial, mine: Client, make_key: MakeKey, route: MakeRoute
) -> None:
    socket, task = ready(), accepted(mine, route())  # of another project
    for task_id in (task, f"task_{'0' * 32}", "task_x", "nonsense", "a\x00b"):
        subscribe(socket, "t", task_id)
        assert socket.error("t")["code"] == "not_found"
        socket.say(type="task.cancel", task_id=task_id)
        error = socket.error(None)
        assert (error["code"], error["details"]) == ("not_found", {"task_id": task_id})
    own = ready(mine.secret)
    for wrong in ("x", "1", "1.x", "-1.0"):
        subscribe(own, "t", task, starting_after=wrong)
        error = own.error("t")
        assert (error["code"], error["param"]) == ("validation_error", "starting_after")
    assert mine.call("GET", f"/v1/tasks/{task}").json()["status"] == "pending"
    assert mine.call("DELETE", f"/v1/tasks/{task}").status == 200
    subscribe(own, "t", task)
    assert followed(own, "t")[-1]["task"]["status"] == "cancelled"


def test_a_task_that_has_ended_cannot_be_cancelled(worker: Child, ready: Dial, mine: Client, route: MakeRoute) -> None:
    socket, task = ready(mine.secret), accepted(mine, route())
    subscribe(socket, "t", task)
    assert followed(socket, "t")[-1]["task"]["status"] == "succeeded"
    socket.say(type="task.cancel", task_id=task)
    error = socket.error(None)
    assert (error["code"], error["details"]["task_id"]) == ("conflict", task)


def test_to_stop_watching_leaves_the_task_alone_and_frees_the_id(ready: Dial, mine: Client, route: MakeRoute) -> None:
    socket, task = ready(mine.secret), accepted(mine, route())
    for _ in range(20):  # more than there may be at once
        subscribe(socket, "t", task)
        assert socket.hear()["event"]["status"] == "pending"
        socket.say(type="completion.cancel", stream_id="t")
        socket.say(type="ping")
        assert socket.hear()["type"] == "pong"
    assert mine.call("GET", f"/v1/tasks/{task}").json()["status"] == "pending"
