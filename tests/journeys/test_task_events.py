"""An unmodified client reads a task's events over SSE, also through a connection that drops."""

import threading
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Any

import pytest

from tests.conftest import MakeKey, MakeRoute
from tests.gateway import Gateway
from tests.journeys import wire
from tests.journeys.conftest import HELLO, Client
from tests.journeys.wire import Reply, assert_error
from tests.upstream import Upstream, hang, status, stream
from tests.worker import Child

pytestmark = pytest.mark.django_db(transaction=True)
CHAT = "/v1/tasks/chat/completions"
Frame = dict[str, str]


def accepted(client: Client, **payload: Any) -> dict[str, Any]:
    """The links of a new chat task."""
    reply: Reply = client.call("POST", CHAT, payload={"messages": HELLO, **payload})
    assert reply.status == 202, reply
    links: dict[str, Any] = reply.json()["links"]
    return links


def frames(response: HTTPResponse) -> Iterator[Frame]:
    """Server-sent events as they come, without comments."""
    frame: Frame = {}
    for raw in response:
        line = raw.decode().rstrip("\n")
        if not line and frame:
            yield frame
            frame = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            frame[name] = value


def follow(client: Client, links: dict[str, Any], last_id: str = "") -> Any:
    """An open connection to the events, and the frames."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    connection = wire.send(client.url, "GET", links["events"], key=client.secret, headers=headers)
    response = connection.getresponse()
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    return connection, response, frames(response)


def data(found: list[Frame]) -> list[dict[str, Any]]:
    """The data of frames, each of which has the id and type that its data tells."""
    values = [wire.json.loads(frame["data"]) for frame in found]
    assert [(frame["id"], frame["event"]) for frame in found] == [
        (one["sequence_number"], one["type"]) for one in values
    ]
    return values


def test_the_text_of_a_chat_task_is_read_through_a_dropped_connection(
    worker: Child, client: Client, route: MakeRoute, upstream: Upstream
) -> None:
    model = route()
    pieces = [f"piece {number}, " for number in range(30)]
    upstream.script(model, stream(*pieces, every=0.05))
    links = accepted(client, model=model, stream=True)
    read: list[Frame] = []
    while not read or '"succeeded"' not in read[-1]["data"]:
        connection, response, events = follow(client, links, read[-1]["id"] if read else "")
        for frame in events:
            read.append(frame)
            if len(read) % 4 == 0:
                break
        wire.leave(connection, response)
    found = data(read)
    assert "".join(one["text"] for one in found if one["type"] == "task.text") == "".join(pieces)
    assert len({one["sequence_number"] for one in found}) == len(found)
    assert [one["status"] for one in found if one["type"] == "task.state"] == ["pending", "running", "succeeded"]
    result = found[-1]["task"]["result"]
    assert result["content"] == "".join(pieces)
    assert result["response"]["object"] == "chat.completion"
    assert result["usage"]["output_tokens"] > 0
    over = client.call("GET", links["events"], headers={"Last-Event-ID": read[-1]["id"]})
    assert (over.status, over.body) == (204, b"")


def test_a_cut_stream_is_tried_again_and_never_shown_as_finished(
    worker: Child, client: Client, route: MakeRoute, upstream: Upstream
) -> None:
    model = route()
    upstream.script(model, stream("half", cut=True), stream("whole"))
    links = accepted(client, model=model, stream=True)
    connection, response, events = follow(client, links)
    found = data(list(events))
    wire.leave(connection, response)
    states = [one["status"] for one in found if one["type"] == "task.state"]
    assert states == ["pending", "running", "retrying", "running", "succeeded"]
    assert [(one["attempt"], one["text"]) for one in found if one["type"] == "task.text"] == [(1, "half"), (2, "whole")]
    assert found[-1]["task"]["result"]["content"] == "whole"


def test_a_death_is_told_with_its_error(worker: Child, client: Client, route: MakeRoute, upstream: Upstream) -> None:
    model = route()
    upstream.script(model, status(400))
    connection, response, events = follow(client, accepted(client, model=model))
    found = data(list(events))
    wire.leave(connection, response)
    assert (found[-1]["status"], found[-1]["error"]["code"]) == ("dead", "model_error")
    assert found[-1]["task"]["dead_letter"]["state"] == "open"


def test_a_follower_hears_of_a_cancel(worker: Child, client: Client, route: MakeRoute, upstream: Upstream) -> None:
    model, started = route(), threading.Event()
    upstream.script(model, hang(started))
    links = accepted(client, model=model)
    connection, response, events = follow(client, links)
    assert started.wait(10)
    client.call("DELETE", links["self"])
    found = data(list(events))
    wire.leave(connection, response)
    assert [one["status"] for one in found] == ["pending", "running", "cancelled"]


def test_bad_ids_and_other_projects_are_refused_before_the_stream(
    client: Client, route: MakeRoute, gateway: Gateway, make_key: MakeKey
) -> None:
    links = accepted(client, model=route())
    bad = client.call("GET", f"{links['events']}?starting_after=x")
    assert_error(bad, 400, "validation_error", param="starting_after")
    stranger = Client(gateway.url, make_key()[1])
    assert_error(stranger.call("GET", links["events"]), 404, "not_found")
