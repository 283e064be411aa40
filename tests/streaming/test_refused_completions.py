"""Completions over a websocket that are refused or fail: an error of their stream, and the socket lives on."""

import threading
from typing import Any

import pytest

from tests.conftest import MakeKey, MakeRoute
from tests.gateway import Gateway
from tests.journeys.conftest import HELLO, Client
from tests.journeys.wire import assert_error_object, eventually
from tests.streaming.conftest import Dial, Json, Rows, chunks_of, text_of
from tests.upstream import Upstream, status, stream

pytestmark = pytest.mark.django_db(transaction=True)


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
    socket, models = ready(), [route() for _ in FAULTS]
    for model, (reply, code) in zip(models, FAULTS, strict=True):
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
