"""The dispatcher, health and metrics, called as a server calls them."""

import asyncio
import json
from typing import Any

import pytest
from pydantic import SecretStr

from apps.core import health
from apps.core.metrics import REQUESTS
from config.asgi import Application

HERE, THERE = ("127.0.0.1", 5), ("192.0.2.9", 5)


class Reply:
    """What came back."""

    def __init__(self, messages: list[Any]) -> None:
        self.status: int = messages[0]["status"]
        self.headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        self.body: bytes = b"".join(message.get("body", b"") for message in messages[1:])

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def get(
    path: str, headers: dict[str, str] | None = None, client: Any = HERE, method: str = "GET", body: bytes = b""
) -> Reply:
    """One request to a fresh application."""
    sent: list[Any] = []
    bodies = [{"type": "http.request", "body": body}]

    async def receive() -> Any:
        if bodies:
            return bodies.pop()
        await asyncio.Event().wait()
        return None

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b"", "client": client}
    await Application()(scope, receive, send)
    return Reply(sent)


async def test_livez_says_that_the_process_turns() -> None:
    reply = await get("/livez")
    assert (reply.status, reply.json) == (200, {"status": "ok"})
    assert reply.headers["x-request-id"].startswith("req_")


async def test_readyz_names_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fine() -> dict[str, Any]:
        return {}

    async def broken() -> dict[str, Any]:
        raise ConnectionError("password=secret")

    monkeypatch.setattr(health, "_checks", {"one": (fine, True)})
    assert (await get("/readyz")).status == 200
    monkeypatch.setattr(health, "_checks", {"one": (fine, True), "two": (broken, True)})
    reply = await get("/readyz")
    assert reply.status == 503
    assert reply.json["status"] == "unavailable"
    assert reply.json["checks"]["one"]["ok"]
    assert reply.json["checks"]["two"]["error"] == "ConnectionError"
    assert b"secret" not in reply.body


@pytest.mark.parametrize(
    ("token", "shown", "client", "status"),
    [
        ("", "", HERE, 200),
        ("", "", ("::1", 5), 200),
        ("", "", THERE, 403),
        ("", "", None, 403),
        ("", "Bearer ", THERE, 403),
        ("secret", "Bearer secret", THERE, 200),
        ("secret", "Bearer wrong", THERE, 403),
        ("secret", "", THERE, 403),
        ("secret", "", HERE, 403),
        ("secret", "Bearer é", THERE, 403),
    ],
)
async def test_metrics_are_for_this_machine_or_for_the_tokens_bearer(
    settings: Any, token: str, shown: str, client: Any, status: int
) -> None:
    settings.REDRIVE = settings.REDRIVE.model_copy(update={"metrics_token": SecretStr(token)})
    reply = await get("/metrics", {"Authorization": shown} if shown else None, client)
    assert reply.status == status
    assert (b"redrive_requests_total" in reply.body) is (status == 200)


async def test_metrics_count_replies_by_operation_and_never_by_path() -> None:
    before = REQUESTS.labels("other", "404")._value.get()
    await get("/v1/made-up-by-a-client")
    assert REQUESTS.labels("other", "404")._value.get() == before + 1
    assert b"made-up-by-a-client" not in (await get("/metrics")).body


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/", "/livez/x"])
async def test_an_unknown_address_of_the_api_is_the_one_body(path: str) -> None:
    reply = await get(path)
    assert reply.status == 404
    assert reply.json["error"]["code"] == "not_found"
    assert reply.json["error"]["request_id"] == reply.headers["x-request-id"]


async def test_a_wrong_method_says_which_are_right() -> None:
    reply = await get("/v1/chat/completions", method="DELETE")
    assert (reply.status, reply.json["error"]["code"]) == (405, "method_not_allowed")
    assert "POST" in reply.headers["allow"]


async def test_a_request_without_a_key_is_refused_before_its_body_is_looked_at() -> None:
    reply = await get("/v1/chat/completions", method="POST", body=b"{broken")
    assert (reply.status, reply.json["error"]["code"]) == (401, "invalid_api_key")
    assert reply.headers["www-authenticate"].startswith("Bearer")
    assert not [name for name in reply.headers if name.startswith("x-ratelimit")]


async def test_the_document_describes_every_route_without_a_key() -> None:
    reply = await get("/v1/openapi.json")
    assert reply.status == 200
    assert {"/v1/chat/completions", "/v1/embeddings", "/v1/models"} <= set(reply.json["paths"])


async def websocket(extensions: dict[str, Any]) -> list[Any]:
    """What a handshake at an address without websockets is answered by a server that can do so much."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": [], "client": HERE, "extensions": extensions}
    await Application()(scope, receive, send)
    return sent


async def test_a_websocket_at_another_address_is_refused_with_the_one_body() -> None:
    start, body = await websocket({"websocket.http.response": {}})
    headers = dict(start["headers"])
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 404)
    assert headers[b"content-type"] == b"application/json"
    error = json.loads(body["body"])["error"]
    assert (error["code"], error["request_id"].encode()) == ("not_found", headers[b"x-request-id"])


async def test_a_server_that_cannot_answer_a_handshake_with_a_body_refuses_it() -> None:
    assert await websocket({}) == [{"type": "websocket.close", "code": 1008}]
