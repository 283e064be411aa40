"""Requests that are refused before their fields count: keys, methods, addresses, headers, sizes."""

import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from apps.access import keys
from tests.conftest import MakeKey, MakeRoute
from tests.gateway import Gateway
from tests.journeys import wire
from tests.journeys.conftest import HELLO, Client, Rows
from tests.journeys.test_bad_input import CHAT, says
from tests.journeys.wire import assert_error
from tests.upstream import Upstream

pytestmark = pytest.mark.django_db(transaction=True)
MIB = 1024 * 1024


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer rd_unknown", "Basic cmQ6cmQ=", "Bearer " + "x" * 5000],
    ids=["missing", "empty", "no secret", "unknown", "basic", "long"],
)
def test_a_missing_or_unknown_key_is_401(
    header: str | None, route: MakeRoute, gateway: Gateway, upstream: Upstream
) -> None:
    model = route()
    headers = {} if header is None else {"Authorization": header}
    payload = {"model": model, "messages": HELLO}
    reply = wire.call(gateway.url, "POST", CHAT, payload=payload, headers=headers)
    assert_error(reply, 401, "invalid_api_key")
    assert not [name for name in reply.headers if name.startswith("x-ratelimit")]
    assert upstream.requests(model) == []


def test_an_expired_or_disabled_key_is_401(
    route: MakeRoute, gateway: Gateway, make_key: MakeKey, upstream: Upstream
) -> None:
    model = route()
    _, expired = make_key(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    row, disabled = make_key()
    keys.set_disabled(key=row, disabled=True)
    for secret in (expired, disabled):
        assert_error(Client(gateway.url, secret).chat(model), 401, "invalid_api_key")
    assert upstream.requests(model) == []


def test_an_unknown_key_is_401_before_its_body_is_judged(gateway: Gateway) -> None:
    reply = wire.call(gateway.url, "POST", CHAT, key="rd_unknown", body=b"{nonsense")
    assert_error(reply, 401, "invalid_api_key")


@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_another_method_is_405_with_the_one_error_body(method: str, path: str, client: Client) -> None:
    reply = client.call(method, path)
    assert_error(reply, 405, "method_not_allowed")
    assert reply.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/", "/v1/chat/completions/extra/more", "/v1/../v1/x", "/v1/%00"])
def test_an_unknown_address_is_404_with_the_one_error_body(path: str, client: Client) -> None:
    assert_error(client.call("GET", path), 404, "not_found")


@pytest.mark.parametrize("path", ["/v1/models/nothing-here", "/v1/models/a/b:c@d", "/v1/models/%00"])
def test_an_unknown_model_is_404_with_its_own_code(path: str, client: Client) -> None:
    assert_error(client.call("GET", path), 404, "model_not_found", param="model")


def test_a_chat_with_an_unknown_model_is_404(client: Client) -> None:
    reply = client.chat("no/such:model@1")
    assert_error(reply, 404, "model_not_found", param="model")
    assert "no/such:model@1" in reply.error["message"]


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_another_content_type_is_415(content_type: str, client: Client) -> None:
    reply = client.call("POST", CHAT, body=b"{}", headers={"Content-Type": content_type})
    assert_error(reply, 415, "unsupported_media_type")


def test_json_with_a_charset_is_json(route: MakeRoute, client: Client) -> None:
    reply = client.chat(route(), headers={"Content-Type": "application/json; charset=utf-8"})
    assert reply.status == 200


@pytest.mark.parametrize("size", [10 * MIB + 1, 11 * MIB, 19 * MIB])
def test_a_body_that_is_too_large_is_413_as_an_answer(
    size: int, route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    model = route()
    head = b'{"model": "%s", "messages": [{"role": "user", "content": "' % model.encode()
    body = head.ljust(size - 4, b"x") + b'"}]}'
    reply = client.call("POST", CHAT, body=body)
    assert_error(reply, 413, "payload_too_large")
    assert upstream.requests(model) == []


def test_a_body_just_small_enough_is_read(client: Client) -> None:
    body = b'{"messages": "' + b"x" * (10 * MIB - 16) + b'"}'
    assert len(body) == 10 * MIB
    assert_error(client.call("POST", CHAT, body=body), 400, "validation_error", param="messages")


def test_a_body_of_unknown_length_is_bounded_too(client: Client) -> None:
    reply = client.call("POST", CHAT, body=iter([b" " * MIB] * 11))  # sent in chunks
    assert_error(reply, 413, "payload_too_large")


@pytest.mark.parametrize("value", ["u" * 257, "a\tb"])
def test_an_end_users_header_that_is_no_good_is_400(
    value: str, route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    model = route()
    assert_error(client.chat(model, headers={"X-User-ID": value}), 400, "validation_error", param="X-User-ID")
    assert upstream.requests(model) == []


@pytest.mark.parametrize("value", ["a-sane_id.1:2/3+4=5@6", "x" * 128])
def test_a_sane_request_id_is_taken_over_everywhere(
    value: str, route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows
) -> None:
    model = route()
    assert client.chat(model, headers={"X-Request-ID": value}).request_id == value
    assert ledger(model)[0].request_id == value
    assert {name.lower(): text for name, text in upstream.requests(model)[0].headers.items()}["x-request-id"] == value
    refused = client.call("POST", CHAT, body=b"{", headers={"X-Request-ID": value})
    assert (refused.request_id, refused.error["request_id"]) == (value, value)


@pytest.mark.parametrize("value", ["", "two words", "x" * 129, "<script>", "a;b", "caf\xe9", '"quoted"'])
def test_a_weird_request_id_is_replaced_by_ours(value: str, client: Client) -> None:
    reply = client.call("GET", "/v1/models", headers={"X-Request-ID": value.encode("latin-1").decode("latin-1")})
    assert reply.status == 200
    assert reply.request_id.startswith("req_")


@pytest.mark.parametrize(
    ("window", "fields"),
    [
        (100, {"max_tokens": 100}),
        (100, {"max_completion_tokens": 100}),
        (2000, {}),
        (100, {"messages": says("x" * 800)}),
    ],
)
def test_what_cannot_fit_the_context_window_is_refused_with_the_numbers(
    window: int, fields: dict[str, Any], route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    model = route(context_window=window)
    if window == 2000:
        fields = {"messages": says("x" * 4000)}  # 1000 tokens, and the route's own 1024 for the answer
    reply = client.chat(model, **fields)
    assert_error(reply, 400, "context_length_exceeded", any_param=True)
    assert reply.error["details"]["max_tokens"] == window
    assert reply.error["details"]["tokens_used"] > window
    assert upstream.requests(model) == []


def test_every_reply_carries_its_id_and_our_overhead(route: MakeRoute, client: Client) -> None:
    model = route()
    replies = [client.chat(model), client.chat(model, stream=True), client.call("GET", "/v1/models")]
    replies += [client.chat("no-such"), client.call("GET", "/v1/nothing"), client.call("GET", "/livez")]
    replies += [wire.call(client.url, "GET", "/v1/models"), client.call("POST", CHAT, body=b"{")]
    ids = {reply.request_id for reply in replies}
    assert len(ids) == len(replies)
    assert all(float(reply.headers["redrive-overhead-ms"]) >= 0 for reply in replies)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"X-A: " + b"a" * 400_000, b"431"),
        (b"\r\n".join(b"X-%d: a" % number for number in range(300)) + b"\r\n\r\n", b"431"),
        (b"X-A: " + b"a" * 30_000 + b"\r\n\r\n", b"200"),
        (b"no header at all\r\n\r\n", b"400"),
    ],
    ids=["endless", "many", "large", "broken"],
)
def test_the_head_of_a_request_is_bounded(head: bytes, status: bytes, gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + head)
        answer = connection.recv(65536)
    assert answer.split(b" ")[1] == status
    assert (b'"error"' in answer) is (status != b"200")


def test_a_large_body_is_looked_at_only_where_the_key_is_known(
    client: Client, gateway: Gateway, route: MakeRoute
) -> None:
    body = b'{"messages": ' + b"[" * 300_000
    assert_error(wire.call(gateway.url, "POST", CHAT, body=body), 401, "invalid_api_key")
    assert_error(client.call("POST", CHAT, body=body), 400, "validation_error")


def test_the_larger_of_both_output_limits_counts(route: MakeRoute, client: Client, upstream: Upstream) -> None:
    model = route(context_window=100)
    for one, other in ((1, 1000), (1000, 1)):
        reply = client.chat(model, max_tokens=one, max_completion_tokens=other)
        assert_error(reply, 400, "context_length_exceeded", any_param=True)
    assert upstream.requests(model) == []


def test_whole_replies_say_their_length_and_streams_do_not(client: Client, route: MakeRoute) -> None:
    model = route()
    for reply in (client.chat(model), client.call("GET", "/v1/models"), client.call("GET", "/v1/nothing")):
        assert int(reply.headers["content-length"]) == len(reply.body)
    assert "content-length" not in client.chat(model, stream=True).headers


def test_the_end_user_of_the_header_may_be_any_text(client: Client, route: MakeRoute, ledger: Rows) -> None:
    model, name = route(), "пользователь"
    assert client.chat(model, headers={"X-User-ID": name.encode().decode("latin-1")}).status == 200
    assert [row.end_user for row in ledger(model)] == [name]
    reply = client.chat(model, headers={"X-User-ID": "\xff\xfe"})
    assert_error(reply, 400, "validation_error", any_param=True)


def test_metrics_are_not_for_those_behind_a_proxy_on_this_machine(gateway: Gateway) -> None:
    assert wire.call(gateway.url, "GET", "/metrics").status == 200
    for name in ("X-Forwarded-For", "Forwarded"):
        assert wire.call(gateway.url, "GET", "/metrics", headers={name: "192.0.2.1"}).status == 403
