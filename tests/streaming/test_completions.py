"""Completions over a websocket: the same chunks, money, limits and errors as over HTTP, many at once."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeKey, MakeRoute
from tests.gateway import Gateway
from tests.journeys.conftest import HELLO, Client
from tests.journeys.wire import assert_error_object, eventually
from tests.streaming.conftest import Dial, Json, Rows
from tests.upstream import Upstream, chunk, hang, status, stream

pytestmark = pytest.mark.django_db(transaction=True)


def chunks_of(messages: list[Json], stream_id: str) -> list[Json]:
    """The chunks of a stream, whose numbers must be 1, 2, ..."""
    found = [one for one in messages if one["type"] == "completion.chunk" and one["stream_id"] == stream_id]
    assert [one["sequence_number"] for one in found] == list(range(1, len(found) + 1))
    return [one["chunk"] for one in found]


def text_of(chunks: list[Json]) -> str:
    return "".join(choice["delta"].get("content") or "" for one in chunks for choice in one["choices"])


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
    socket, calls = ready(), []
    for name in ("a", "b"):
        model, gone = route(), threading.Event()
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


def test_a_cut_stream_is_an_error_after_its_pieces_and_the_socket_lives_on(
    ready: Dial, route: MakeRoute, upstream: Upstream, ledger: Rows
) -> None:
    model = route()
    upstream.script(model, stream("half", cut=True))
    socket = ready()
    socket.create("a", model)
    *pieces, last = socket.until("error")
    assert text_of(chunks_of(pieces, "a")) == "half"
    assert last["stream_id"] == "a"
    assert_error_object(last["error"], 502, "model_error", request_id=ledger(model)[0].request_id)
    upstream.script(model, stream("whole"))
    socket.create("a", model)
    assert socket.until("completion.completed")[-1]["status"] == "completed"


FAULTS: list[tuple[Any, str]] = [
    (status(400, {"error": {"message": "no"}}), "model_error"),
    (status(401), "upstream_credentials_exhausted"),
    (stream(frames=(b'data: {"error": {"message": "x"}}\n\n',)), "model_error"),
]


def test_a_fault_of_the_upstream_is_an_error_and_the_socket_lives_on(
    ready: Dial, route: MakeRoute, upstream: Upstream
) -> None:
    socket = ready()
    for reply, code in FAULTS:
        model = route()
        upstream.script(model, reply)
        socket.create("a", model)
        error = socket.error("a")
        assert (error["code"], error["request_id"][:4]) == (code, "req_")
    socket.say(type="ping")
    assert socket.hear()["type"] == "pong"


WRONG: list[tuple[Json, str]] = [
    ({"store": True}, "store"),
    ({"stream": False}, "stream"),
    ({"stream": "yes"}, "stream"),
    ({"temperature": 3}, "temperature"),
    ({"nonsense": 1}, "nonsense"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "user", "content": "a\x00b"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    ({"messages": [{"role": "nobody", "content": "x"}]}, "messages[0]"),
    ({"max_tokens": True}, "max_tokens"),
    ({"n": 0}, "n"),
]


def test_a_request_that_is_wrong_in_itself_is_an_error_of_its_stream(
    ready: Dial, route: MakeRoute, upstream: Upstream
) -> None:
    socket, model = ready(), route()
    for fields, param in WRONG:
        socket.create("a", model, **fields)
        error = socket.error("a")
        assert (error["code"], error["param"]) == ("validation_error", param)
    assert upstream.requests(model) == []
    socket.create("a", model)
    assert socket.until("completion.completed")


def test_what_is_not_available_yet_is_refused_with_its_name(ready: Dial, route: MakeRoute) -> None:
    socket, model = ready(), route()
    request = {"model": model, "messages": HELLO}
    socket.say(type="completion.create", stream_id="a", request=request, durable=True)
    assert socket.error("a")["param"] == "durable"
    socket.say(type="completion.create", stream_id="b", request=request, durable=False)
    assert socket.until("completion.completed", "b")
    socket.say(type="completion.resume", stream_id="c", completion_id="chatcmpl-1", starting_after=3)
    error = socket.error("c")
    assert (error["code"], error["param"]) == ("validation_error", "type")
    assert "completion.resume" in error["message"]


def test_an_unknown_model_and_one_that_the_key_may_not_use_are_errors(
    ready: Dial, make_key: MakeKey, route: MakeRoute
) -> None:
    model = route()
    socket = ready(make_key(allowed_models=["other-*"])[1])
    socket.create("a", model)
    assert socket.error("a")["code"] == "permission_denied"
    socket.create("b", "other-unknown")
    assert socket.error("b")["code"] == "model_not_found"


def test_limits_hold_and_say_when_to_come_back(
    ready: Dial, door: Gateway, make_key: MakeKey, route: MakeRoute, upstream: Upstream
) -> None:
    model, secret = route(), make_key(rpm=3)[1]
    socket = ready(secret)
    assert Client(door.url, secret).chat(model).status == 200
    for name in ("a", "b"):
        socket.create(name, model)
        socket.until("completion.completed", name)
    socket.create("c", model)
    error = socket.error("c")
    assert_error_object(error, 429, "rate_limit_exceeded", request_id=error["request_id"])
    assert 0 < error["details"].pop("retry_after") <= 60
    assert error["details"] == {"scope": "key", "limit": 3, "unit": "requests a minute"}
    assert len(upstream.requests(model)) == 3


def test_slots_are_held_by_streams_and_free_after_them(
    ready: Dial, make_key: MakeKey, route: MakeRoute, upstream: Upstream
) -> None:
    model, gone = route(), threading.Event()
    upstream.script(model, stream("x", then_hang=True, gone=gone))
    socket = ready(make_key(limits={"concurrency": 1})[1])
    socket.create("a", model)
    socket.until("completion.chunk", "a")
    socket.create("b", model)
    assert socket.error("b")["details"]["unit"] == "requests at a time"
    socket.say(type="completion.cancel", stream_id="a")
    socket.until("completion.completed", "a")
    upstream.script(model, stream("x"))

    def try_again() -> bool:
        socket.create("c", model)
        first = socket.hear()
        if first["type"] == "error":
            return False
        return bool(socket.until("completion.completed", "c"))

    assert eventually(try_again, within=3)  # slots are given back beside the last frame


def test_a_large_piece_comes_whole(ready: Dial, route: MakeRoute, upstream: Upstream) -> None:
    model, big = route(), "y" * 400_000
    upstream.script(model, stream(frames=(b"data: " + json.dumps(chunk(big)).encode() + b"\n\n",)))
    socket = ready(max_size=None)
    socket.create("a", model)
    messages = socket.until("completion.completed")
    assert text_of(chunks_of(messages, "a")) == big
