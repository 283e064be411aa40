"""Who may open a websocket: the three ways to show a key, pages of other sites, other addresses, how many."""

import json
import socket as sockets
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from websockets.exceptions import InvalidStatus

from apps.access import keys
from tests.conftest import MakeKey
from tests.gateway import Gateway
from tests.journeys.wire import assert_error_object
from tests.streaming.conftest import Dial, Json, Socket

pytestmark = pytest.mark.django_db(transaction=True)


def refusal(dialled: Dial, *args: Any, **options: Any) -> tuple[int, Json]:
    """Status and inner error object of a handshake that fails."""
    with pytest.raises(InvalidStatus) as refused:
        dialled(*args, **options)
    response = refused.value.response
    error: Json = json.loads(response.body or b"{}")["error"]
    assert error["request_id"] == response.headers["x-request-id"]
    return response.status_code, error


def assert_ready(socket: Socket) -> None:
    """The socket may be used."""
    found = socket.hear()
    assert found == {"type": "connection.ready", "request_id": found["request_id"], "max_streams": 16}
    assert found["request_id"] == socket.connection.response.headers["x-request-id"]  # type: ignore[union-attr]
    socket.say(type="ping")
    assert socket.hear() == {"type": "pong"}


def assert_closed(socket: Socket, code: int, status: int, error_code: str) -> Json:
    """The socket is told why, and closed. The error."""
    found, messages = socket.closed()
    assert found == code
    assert [(one["type"], one["stream_id"]) for one in messages] == [("error", None)]
    error: Json = messages[0]["error"]
    assert_error_object(error, status, error_code, request_id=error["request_id"])
    return error


def init(socket: Socket, key: str) -> None:
    """Show a key in the first message."""
    socket.say(type="connection_init", payload={"api_key": key})


def test_a_key_in_the_header_opens_a_socket(dialled: Dial, make_key: MakeKey) -> None:
    socket = dialled(make_key()[1])
    assert_ready(socket)
    assert socket.connection.subprotocol is None


def test_a_key_among_the_subprotocols_opens_a_socket_and_is_not_echoed(dialled: Dial, make_key: MakeKey) -> None:
    secret = make_key()[1]
    socket = dialled(subprotocols=["redrive.v1", f"redrive.auth.{secret}"])
    assert_ready(socket)
    assert socket.connection.subprotocol == "redrive.v1"
    assert socket.connection.response is not None
    assert secret not in str(socket.connection.response.headers)


def test_a_key_in_the_first_message_opens_a_socket(dialled: Dial, make_key: MakeKey) -> None:
    socket = dialled(subprotocols=["redrive.v1"])
    init(socket, make_key()[1])
    assert_ready(socket)


def test_the_header_comes_before_the_subprotocols(dialled: Dial, make_key: MakeKey) -> None:
    assert_ready(dialled(make_key()[1], subprotocols=["redrive.v1", "redrive.auth.rd_wrong"]))


@pytest.mark.parametrize("way", ["header", "subprotocol", "message"])
def test_an_unknown_key_is_closed_4401_in_each_way(dialled: Dial, way: str) -> None:
    if way == "header":
        socket = dialled("rd_unknown")
    elif way == "subprotocol":
        socket = dialled(subprotocols=["redrive.v1", "redrive.auth.rd_unknown"])
    else:
        socket = dialled()
        init(socket, "rd_unknown")
    assert_closed(socket, 4401, 401, "invalid_api_key")


def test_another_scheme_than_bearer_is_closed_4401(dialled: Dial, make_key: MakeKey) -> None:
    secret = make_key()[1]
    assert_closed(dialled(headers={"Authorization": f"Basic {secret}"}), 4401, 401, "invalid_api_key")


def test_a_key_in_the_query_string_is_not_looked_at(dialled: Dial, make_key: MakeKey) -> None:
    secret = make_key()[1]
    socket = dialled(path=f"/v1/stream?api_key={secret}&authorization=Bearer%20{secret}")
    assert_closed(socket, 4408, 401, "invalid_api_key")


def test_a_socket_that_shows_no_key_in_time_is_closed_4408(dialled: Dial) -> None:
    assert_closed(dialled(), 4408, 401, "invalid_api_key")


@pytest.mark.parametrize("message", [{"type": "ping"}, {"type": "task.cancel", "task_id": "task_1"}])
def test_any_other_first_message_is_closed_4401(dialled: Dial, message: Json) -> None:
    socket = dialled()
    socket.say(**message)
    assert_closed(socket, 4401, 401, "invalid_api_key")


def test_a_second_key_is_a_bad_message(ready: Dial, make_key: MakeKey) -> None:
    socket = ready()
    init(socket, make_key()[1])
    assert assert_closed(socket, 4400, 400, "validation_error")["param"] == "type"


def test_a_disabled_and_an_expired_key_are_closed_4401(dialled: Dial, make_key: MakeKey) -> None:
    row, disabled = make_key()
    keys.set_disabled(key=row, disabled=True)
    expired = make_key(expires_at=timezone.now() - timedelta(seconds=1))[1]
    for secret in (disabled, expired):
        assert_closed(dialled(secret), 4401, 401, "invalid_api_key")


def test_a_key_may_have_so_many_sockets_and_again_when_one_has_ended(
    dialled: Dial, ready: Dial, make_key: MakeKey
) -> None:
    secret = make_key()[1]
    first, *_ = [ready(secret) for _ in range(3)]
    error = assert_closed(dialled(secret), 4429, 429, "rate_limit_exceeded")
    assert error["details"] == {"scope": "key", "limit": 3, "unit": "websockets"}
    assert ready()
    first.connection.close()
    assert ready(secret)


def test_a_page_of_the_gateway_itself_or_of_an_allowed_site_opens_a_socket(ready: Dial, door: Gateway) -> None:
    for origin in (door.url, "https://friend.example", "HTTPS://Friend.example"):
        assert ready(origin=origin)


FOREIGN = (
    "https://evil.example",
    "http://friend.example",
    "https://friend.example.evil.example",
    "https://friend.example:8443",
    "null",
    "http://127.0.0.1",
    "ftp://127.0.0.1:{port}",
    "http://user@127.0.0.1:{port}",
    "http://[",
    "",
)


def test_a_page_of_another_site_is_refused_at_the_handshake(dialled: Dial, make_key: MakeKey, door: Gateway) -> None:
    secret = make_key()[1]
    for origin in FOREIGN:
        status, error = refusal(dialled, secret, headers={"Origin": origin.format(port=door.port)})
        assert (status, error["code"], error["param"]) == (403, "permission_denied", "Origin"), origin


def test_two_origins_do_not_hide_one_another(dialled: Dial, make_key: MakeKey, door: Gateway) -> None:
    headers = [("Origin", door.url), ("Origin", "https://evil.example")]
    assert raw_status(door, headers=[*headers, ("Authorization", f"Bearer {make_key()[1]}")]) in {400, 403}


def test_a_foreign_subprotocol_is_refused_at_the_handshake(dialled: Dial, make_key: MakeKey) -> None:
    for offered in (["graphql-transport-ws"], [f"redrive.auth.{make_key()[1]}"]):
        status, error = refusal(dialled, subprotocols=offered)
        assert (status, error["code"], error["param"]) == (400, "validation_error", "Sec-WebSocket-Protocol")
        assert "rd_" not in error["message"]


def test_a_bad_user_id_is_refused_at_the_handshake(dialled: Dial, make_key: MakeKey) -> None:
    status, error = refusal(dialled, make_key()[1], headers={"X-User-ID": "x" * 300})
    assert (status, error["param"]) == (400, "X-User-ID")


@pytest.mark.parametrize(
    "path", ["/", "/v1/stream/", "/v1/streams", "/v1/chat/completions", "/admin/", "/v1/stream%00"]
)
def test_any_other_address_is_404_at_the_handshake(dialled: Dial, make_key: MakeKey, path: str) -> None:
    status, error = refusal(dialled, make_key()[1], path=path)
    assert (status, error["code"]) == (404, "not_found")


UPGRADE = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]


def raw_status(
    door: Gateway, *, path: bytes = b"/v1/stream", headers: Any = (), without: str = "", method: bytes = b"GET"
) -> int:
    """The status of a handshake as we write it; 0 where the connection ends without one."""
    lines = [f"{name}: {value}" for name, value in [*UPGRADE, *headers] if name != without]
    head = method + b" " + path + b" HTTP/1.1\r\nHost: x\r\n" + "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    with sockets.create_connection(("127.0.0.1", door.port), timeout=5) as raw:
        raw.sendall(head)
        answer = b""
        while b"\r\n" not in answer and (part := raw.recv(4096)):
            answer += part
    return int(answer.split(b" ")[1]) if answer else 0


@pytest.mark.parametrize("name", ["Sec-WebSocket-Version", "Sec-WebSocket-Key"])
def test_a_handshake_without_a_header_that_it_needs_is_refused(door: Gateway, name: str) -> None:
    assert 400 <= raw_status(door, without=name) < 500


BROKEN: list[tuple[bytes, Any]] = [
    (b"/v1/stream", [("X-Many", "1")] * 150),
    (b"/v1/stream", [("X-Long", "x" * 20_000)]),
    (b"/v1/stream?" + b"x" * 20_000, []),
    (b"/v1/stream\xff", []),
    (b"/v1/str\xc3\xa9am", []),
    (b"/v1/stream", [("X-Latin", "\xe9\xff")]),
    (b"/v1/stream", [("Origin", "http://\xe9")]),
    (b"/v1/stream", [("Authorization", "Bearer \xe9")]),
    (b"/v1/stream", [("Sec-WebSocket-Protocol", ",,")]),
    (b"/v1/stream", [("Sec-WebSocket-Extensions", "permessage-deflate; x=\xe9")]),
    (b"*", []),
]


def test_a_broken_handshake_is_answered_and_ends(door: Gateway) -> None:
    for path, headers in BROKEN:
        assert 100 < raw_status(door, path=path, headers=headers) < 500
    written = door.log.read_text()
    assert "Traceback" not in written
    assert "ASGI" not in written


def test_a_handshake_by_post_is_refused(door: Gateway) -> None:
    assert 400 <= raw_status(door, method=b"POST") < 500


def test_sockets_without_a_key_are_counted_apart(dialled: Dial, ready: Dial) -> None:
    with ExitStack() as opened:
        for _ in range(20):
            opened.callback(dialled().connection.close)
        assert ready()
