"""Messages that are none: each closes the socket with its code, tells why, and never breaks the gateway."""

import json
from typing import Any

import pytest

from tests.conftest import MakeKey, MakeRoute
from tests.gateway import Gateway
from tests.journeys.conftest import HELLO
from tests.journeys.wire import assert_error_object
from tests.streaming.conftest import Dial, Json, Socket
from tests.upstream import Upstream, stream

pytestmark = pytest.mark.django_db(transaction=True)
MIB = 1024 * 1024


def assert_closed(socket: Socket, code: int, status: int, error_code: str) -> Json:
    """The socket is told why, and closed. The error."""
    found, messages = socket.closed()
    assert (found, [one["type"] for one in messages]) == (code, ["error"])
    error: Json = messages[0]["error"]
    assert messages[0]["stream_id"] is None
    assert_error_object(error, status, error_code, request_id=error["request_id"])
    return error


CREATE = {"type": "completion.create", "stream_id": "a", "request": {}}


BAD: list[tuple[str, str | None]] = [
    ("", None),
    ("{", None),
    ("hello", None),
    ("null", None),
    ("[]", None),
    ("5", None),
    ('"x"', None),
    ('{"type": NaN}', None),
    ('{"type": "ping", "a": Infinity}', None),
    ('{"type": "\\ud800"}', None),
    ('{"a":' * 5000 + "1" + "}" * 5000, None),
    ("[" * 100_000, None),
    ('{"type": "ping"} {"type": "ping"}', None),
    ("\x00", None),
    (json.dumps({**CREATE, "request": {"seed": 10**400}}), None),
    ("{}", "type"),
    ('{"type": null}', "type"),
    ('{"type": 5}', "type"),
    ('{"type": ["ping"]}', "type"),
    ('{"type": {"a": 1}}', "type"),
    ('{"type": "nonsense"}', "type"),
    ('{"type": "connection.ready"}', "type"),
    ('{"type": "PING"}', "type"),
    ('{"type": "ping", "more": 1}', "more"),
    ('{"type": "completion.create", "stream_id": "a"}', "request"),
    ('{"type": "completion.cancel"}', "stream_id"),
    ('{"type": "task.subscribe", "stream_id": "a"}', "task_id"),
    ('{"type": "task.cancel"}', "task_id"),
    (json.dumps({**CREATE, "request": []}), "request"),
    (json.dumps({**CREATE, "request": None}), "request"),
    (json.dumps({**CREATE, "request": "x"}), "request"),
    (json.dumps({**CREATE, "stream_id": ""}), "stream_id"),
    (json.dumps({**CREATE, "stream_id": 5}), "stream_id"),
    (json.dumps({**CREATE, "stream_id": None}), "stream_id"),
    (json.dumps({**CREATE, "stream_id": "a\x00b"}), "stream_id"),
    (json.dumps({**CREATE, "stream_id": "a b"}), "stream_id"),
    (json.dumps({**CREATE, "stream_id": "a\n"}), "stream_id"),
    (json.dumps({**CREATE, "stream_id": "x" * 65}), "stream_id"),
    (json.dumps({**CREATE, "stream_id": {"a": 1}}), "stream_id"),
    (json.dumps({**CREATE, "durable": "yes"}), "durable"),
    (json.dumps({**CREATE, "durable": 1}), "durable"),
    (json.dumps({**CREATE, "extra": {"a": 1}}), "extra"),
    (
        '{"type": "completion.resume", "stream_id": "a", "completion_id": "c", "starting_after": -1}',
        "starting_after",
    ),
    ('{"type": "completion.resume", "stream_id": "a", "completion_id": "c", "starting_after": 1e400}', None),
    ('{"type": "task.subscribe", "stream_id": "a", "task_id": 5}', "task_id"),
    ('{"type": "task.subscribe", "stream_id": "a", "task_id": "t", "starting_after": 1}', "starting_after"),
]


def test_a_bad_message_is_closed_4400_with_the_field_at_fault(ready: Dial, make_key: MakeKey) -> None:
    secret, found = make_key()[1], []
    for text, _ in BAD:
        socket = ready(secret)
        socket.connection.send(text)
        found.append((text, assert_closed(socket, 4400, 400, "validation_error")["param"]))
    assert found == BAD


BAD_REQUESTS: list[Any] = [
    {},
    {"messages": "x"},
    {"messages": {"a": [[[[[]]]]]}},
    {"messages": [None]},
    {"messages": HELLO, "temperature": 10**300},
    {"messages": HELLO, "seed": 2**70},
    {"messages": HELLO, "user": "a\x00"},
    {"messages": HELLO, "tools": [[]]},
    {"messages": HELLO, "logit_bias": {"1": "x"}},
    {"messages": HELLO, "response_format": []},
    {"messages": [{"role": "user", "content": "x" * 100_001}]},
]


def test_a_bad_request_is_an_error_of_its_stream_and_not_the_end(ready: Dial) -> None:
    socket = ready()
    for body in BAD_REQUESTS:
        socket.connection.send(json.dumps({**CREATE, "request": body}))
        assert socket.error("a")["code"] == "validation_error", body


def test_deep_values_within_a_request_are_an_error_of_its_stream(ready: Dial) -> None:
    socket = ready()
    deep = '{"a":' * 900 + "1" + "}" * 900
    socket.connection.send(f'{{"type":"completion.create","stream_id":"a","request":{{"messages":{deep}}}}}')
    assert socket.error("a")["param"] == "messages"


def test_a_binary_frame_is_closed_1003(ready: Dial) -> None:
    socket = ready()
    socket.connection.send(b'{"type": "ping"}')
    assert_closed(socket, 1003, 400, "validation_error")


def test_a_frame_over_a_mebibyte_is_closed_1009_and_one_below_is_read(ready: Dial) -> None:
    socket = ready()
    padding = MIB - len('{"type": "ping", "x": ""}')
    socket.connection.send('{"type": "ping", "x": "' + "x" * padding + '"}')
    assert assert_closed(socket, 4400, 400, "validation_error")["param"] == "x"
    socket = ready()
    socket.offend('{"type": "ping", "x": "' + "x" * (padding + 1) + '"}')
    assert socket.closed() == (1009, [])


def test_a_message_in_many_parts_is_read_but_not_in_endless_ones(ready: Dial) -> None:
    socket = ready()
    socket.connection.send(iter(['{"ty', "pe", '": "pi', 'ng"}']))
    assert socket.hear()["type"] == "pong"
    socket.offend(iter(["{", *["  "] * 2000, "}"]))
    assert socket.closed() == (1009, [])


def test_text_that_is_no_utf8_is_closed_1007(ready: Dial, door: Gateway) -> None:
    socket = ready()
    socket.connection.send(b'{"type": "\xff"}', text=True)
    assert socket.closed() == (1007, [])
    assert "Traceback" not in door.log.read_text()


def test_a_stream_id_that_is_in_use_is_closed_4409(ready: Dial, route: MakeRoute, upstream: Upstream) -> None:
    model = route()
    upstream.script(model, stream("x", then_hang=True))
    socket = ready()
    socket.create("a", model)
    socket.until("completion.chunk")
    socket.create("a", model)
    assert assert_closed(socket, 4409, 409, "conflict")["param"] == "stream_id"


def test_one_stream_too_many_is_closed_4429(ready: Dial, route: MakeRoute, upstream: Upstream) -> None:
    model = route()
    upstream.script(model, stream("x", then_hang=True))
    socket = ready()
    for index in range(16):
        socket.create(f"s{index}", model)
        socket.until("completion.chunk", f"s{index}")
    socket.create("one-more", model)
    error = assert_closed(socket, 4429, 429, "rate_limit_exceeded")
    assert error["details"] == {"scope": "websocket", "limit": 16, "unit": "streams at a time"}


def test_nothing_of_this_was_a_bug_of_the_gateway(door: Gateway) -> None:
    assert '"level":"error"' not in door.log.read_text()
