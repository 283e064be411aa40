"""Completions over a websocket: the same chunks, money, limits and errors as over HTTP, many at once."""

import json
import threading
from pathlib import Path

import pytest

from tests.conftest import MakeKey, MakeRoute
from tests.gateway import Gateway
from tests.journeys.conftest import HELLO, Client
from tests.journeys.wire import eventually
from tests.streaming.conftest import Dial, Json, Rows, chunks_of, text_of
from tests.upstream import Upstream, chunk, hang, stream

pytestmark = pytest.mark.django_db(transaction=True)


def without_identity(chunks: list[Json]) -> list[Json]:
    return [{name: value for name, value in one.items() if name not in {"id", "created"}} for one in chunks]


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"stream_options": {"include_usage": True}}])
def test_chunks_are_those_of_server_sent_events(
    ready: Dial, door: Gateway, make_key: MakeKey, route: MakeRoute, upstream: Upstream, fields: Json
) -> None:
    secret, model = make_key()[1], route()
    upstream.script(model, stream("Grüße, ", "Welt \U0001f30d", "\ud800 broken", " end"))
    socket = ready(secret)
    socket.create("a", model, **fields)
    messages = socket.until("completion.completed")
    chunks = chunks_of(messages, "a")
    over_http = Client(door.url, secret).chat(model, **{**fields, "stream": True}).frames
    assert over_http.pop() == "[DONE]"
    assert without_identity(chunks) == without_identity(over_http)
    assert len({one["id"] for one in chunks}) == 1
    assert upstream.requests(model)[0].body == upstream.requests(model)[1].body


def test_a_completed_stream_says_what_the_ledger_says(
    ready: Dial, route: MakeRoute, upstream: Upstream, ledger: Rows
) -> None:
    model = route(input_usd_per_million=2, output_usd_per_million=10)
    socket = ready()
    socket.create("a", model, user="end-user-1")
    last = socket.until("completion.completed")[-1]
    [row] = ledger(model)
    assert (last["stream_id"], last["status"]) == ("a", "completed")
    assert last["usage"] == {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    assert last["cost_usd"] == row.cost_nusd / 1e9 == 7e-05
    assert 0 <= last["latency_ms"] < 15_000
    assert (row.request_id, row.outcome, row.stream, row.end_user) == (
        last["request_id"], "succeeded", True, "end-user-1",
    )  # fmt: skip
    assert upstream.requests(model)[0].headers["X-Request-ID"] == last["request_id"]


def test_each_completion_has_an_id_and_a_log_line_of_its_own_without_texts(
    ready: Dial, door: Gateway, make_key: MakeKey, route: MakeRoute
) -> None:
    model, (row, secret) = route(), make_key()
    socket = ready(secret, headers={"X-User-ID": "somebody"})
    ids = set()
    for _ in range(2):
        socket.create("again", model)  # an id is free when its stream has ended
        ids.add(socket.until("completion.completed")[-1]["request_id"])
    assert len(ids) == 2
    lines = eventually(
        lambda: [one for one in log_of(door) if one.get("request_id") in ids and one["event"] == "stream"], 3
    )
    assert {one["request_id"] for one in lines} == ids
    for line in lines:
        assert (line["operation"], line["outcome"], line["status"]) == ("chat/completions", "completed", 200)
        assert (line["key"], line["model"]) == (row.prefix, model)
    socket.connection.close()
    ended = eventually(
        lambda: [one for one in log_of(door) if one["event"] == "socket" and one.get("key") == row.prefix], 3
    )
    assert (ended[0]["code"], ended[0]["streams"]) == (1000, 2)
    written = door.log.read_text()
    assert secret not in written
    assert HELLO[0]["content"] not in written


def log_of(gateway: Gateway) -> list[Json]:
    """The JSON lines of its log."""
    lines = Path(gateway.log).read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def test_several_streams_run_at_once_and_each_gets_its_own(ready: Dial, route: MakeRoute, upstream: Upstream) -> None:
    socket, models = ready(), [route() for _ in range(16)]
    for index, model in enumerate(models):
        upstream.script(model, stream(*[f"{index}-{piece} " for piece in range(20)], every=0.005))
    for index, model in enumerate(models):
        socket.create(f"s{index}", model)
    messages, ended = [], 0
    while ended < 16:
        messages.append(socket.hear())
        ended += messages[-1]["type"] == "completion.completed"
    for index in range(16):
        expected = "".join(f"{index}-{piece} " for piece in range(20))
        assert text_of(chunks_of(messages, f"s{index}")) == expected
    order = [one["stream_id"] for one in messages if one["type"] == "completion.chunk"]
    assert order != sorted(order)  # they came side by side


def test_a_cancelled_completion_is_aborted_upstream_billed_and_its_neighbours_go_on(
    ready: Dial, route: MakeRoute, upstream: Upstream, ledger: Rows
) -> None:
    model, other, gone = route(output_usd_per_million=1), route(), threading.Event()
    upstream.script(model, stream("12345678", then_hang=True, gone=gone))
    upstream.script(other, stream(*["x"] * 100, every=0.01))
    socket = ready()
    socket.create("a", model)
    socket.until("completion.chunk", "a")
    socket.create("b", other)
    socket.say(type="completion.cancel", stream_id="a")
    assert gone.wait(3)
    last = socket.until("completion.completed", "a")[-1]
    [row] = ledger(model)
    assert (row.outcome, row.estimated, row.output_tokens) == ("cancelled", True, 2)
    assert (last["status"], last["usage"]["completion_tokens"]) == ("cancelled", 2)
    assert last["cost_usd"] == row.cost_nusd / 1e9 > 0
    socket.until("completion.completed", "b")
    assert text_of(chunks_of(socket.seen, "b")) == "x" * 100


def test_a_completion_cancelled_before_its_first_piece_is_told_and_billed(
    ready: Dial, route: MakeRoute, upstream: Upstream, ledger: Rows
) -> None:
    model, started, gone = route(), threading.Event(), threading.Event()
    upstream.script(model, hang(started, gone))
    socket = ready()
    socket.create("a", model)
    assert started.wait(5)
    socket.say(type="completion.cancel", stream_id="a")
    socket.say(type="completion.cancel", stream_id="a")
    assert gone.wait(3)
    last = socket.hear()
    [row] = ledger(model)
    assert (last["type"], last["status"], row.outcome) == ("completion.completed", "cancelled", "cancelled")
    assert last["usage"]["prompt_tokens"] == row.input_tokens > 0
    assert last["cost_usd"] == row.cost_nusd / 1e9
    socket.say(type="ping")
    assert socket.hear()["type"] == "pong"


def test_to_cancel_what_has_ended_changes_nothing(ready: Dial) -> None:
    socket = ready()
    socket.say(type="completion.cancel", stream_id="never-was")
    socket.say(type="ping")
    assert socket.hear()["type"] == "pong"


@pytest.mark.parametrize("how", ["close", "vanish"])
def test_a_lost_socket_aborts_its_completions_upstream_and_pays_for_them(
    how: str, ready: Dial, route: MakeRoute, upstream: Upstream, ledger: Rows
) -> None:
    socket, calls, models = ready(), [], {"a": route(), "b": route()}
    for name, model in models.items():
        gone = threading.Event()
        upstream.script(model, stream("12345678", then_hang=True, gone=gone))
        socket.create(name, model)
        socket.until("completion.chunk", name)
        calls.append((model, gone))
    if how == "close":
        threading.Thread(target=socket.connection.close).start()
    else:
        socket.connection.close_socket()
    for model, gone in calls:
        assert gone.wait(3)
        [row] = ledger(model)
        assert (row.outcome, row.estimated, row.output_tokens) == ("cancelled", True, 2)


def test_a_large_piece_comes_whole(ready: Dial, route: MakeRoute, upstream: Upstream) -> None:
    model, big = route(), "y" * 400_000
    upstream.script(model, stream(frames=(b"data: " + json.dumps(chunk(big)).encode() + b"\n\n",)))
    socket = ready(max_size=None)
    socket.create("a", model)
    messages = socket.until("completion.completed")
    assert text_of(chunks_of(messages, "a")) == big
