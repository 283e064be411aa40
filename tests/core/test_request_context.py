"""What a request knows of itself, and the headers that every reply carries."""

import asyncio
from typing import Any

import pytest

from apps.core import request_context
from apps.core.request_context import Message, RequestContext, RequestContextMiddleware


async def call(
    app: Any, headers: list[tuple[bytes, bytes]] | None = None, client: Any = ("192.0.2.9", 5), proxies: int = 0
) -> tuple[dict[str, str], list[RequestContext]]:
    """The reply's headers, and the contexts that `on_end` was told of."""
    sent: list[Message] = []
    ended: list[RequestContext] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    middleware = RequestContextMiddleware(app, trusted_proxies=proxies, on_end=lambda _, context: ended.append(context))
    await middleware({"type": "http", "headers": headers or [], "client": client}, receive, send)
    found = [(name.decode(), value.decode()) for message in sent for name, value in message.get("headers", ())]
    return dict(found), ended


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Replies, with a header of its own and one by the context."""
    request_context.current().reply_headers["x-mine"] = "1"
    await asyncio.sleep(0.01)
    await send({"type": "http.response.start", "status": 201, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"x"})


async def address(headers: list[tuple[bytes, bytes]], proxies: int, client: Any = ("192.0.2.9", 5)) -> str:
    """The address that a request is seen to come from."""
    _, (context,) = await call(hello, headers, client, proxies)
    return context.address


async def test_every_reply_has_its_id_its_overhead_and_what_the_request_added() -> None:
    headers, (context,) = await call(hello)
    assert headers["x-request-id"] == context.request_id
    assert float(headers["redrive-overhead-ms"]) >= 9
    assert (headers["content-type"], headers["x-mine"]) == ("text/plain", "1")
    assert context.status == 201


async def test_a_clients_sane_id_is_kept() -> None:
    headers, _ = await call(hello, [(b"x-request-id", b"mine-1")])
    assert headers["x-request-id"] == "mine-1"


@pytest.mark.parametrize("insane", [b"", b"a b", b"\xff", b"x" * 200, b"a\r\nset-cookie: x"])
async def test_a_clients_other_id_is_replaced(insane: bytes) -> None:
    headers, _ = await call(hello, [(b"x-request-id", insane)])
    assert headers["x-request-id"].startswith("req_")


async def test_time_spent_on_providers_is_no_overhead() -> None:
    async def waits(scope: Any, receive: Any, send: Any) -> None:
        request_context.current().upstream_seconds = 5
        await send({"type": "http.response.start", "status": 200})

    headers, _ = await call(waits)
    assert headers["redrive-overhead-ms"] == "0.00"


async def test_the_end_is_told_even_where_no_reply_began() -> None:
    async def leaves(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    ended: list[int] = []
    middleware = RequestContextMiddleware(leaves, on_end=lambda _, context: ended.append(context.status))
    with pytest.raises(asyncio.CancelledError):
        await middleware({"type": "http", "headers": [], "client": None}, None, None)  # type: ignore[arg-type]
    assert ended == [499]


async def test_a_websocket_shows_its_id_when_it_is_accepted_or_refused() -> None:
    async def accept(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept", "subprotocol": None})

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})

    for app, status in ((accept, 101), (refuse, 403)):
        headers, (context,) = await call(app)
        assert (headers["x-request-id"], context.status) == (context.request_id, status)


async def test_requests_side_by_side_do_not_mix() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        mine = request_context.current()
        await asyncio.sleep(0.01)
        assert request_context.current() is mine
        await hello(scope, receive, send)

    replies = await asyncio.gather(*(call(slow, [(b"x-request-id", f"r{number}".encode())]) for number in range(20)))
    assert [headers["x-request-id"] for headers, _ in replies] == [f"r{number}" for number in range(20)]


FORWARDED = [(b"x-forwarded-for", b"203.0.113.1, 198.51.100.7"), (b"x-forwarded-for", b"198.51.100.8")]


@pytest.mark.parametrize(
    ("proxies", "seen"),
    [(0, "192.0.2.9"), (1, "198.51.100.8"), (2, "198.51.100.7"), (3, "203.0.113.1"), (4, "192.0.2.9")],
)
async def test_the_address_is_what_the_outermost_trusted_proxy_saw(proxies: int, seen: str) -> None:
    assert await address(FORWARDED, proxies) == seen


async def test_a_socket_without_an_address_has_none() -> None:
    assert await address([], 0, client=None) == ""


def test_outside_of_a_request_there_is_a_fresh_context_that_nobody_sees() -> None:
    assert request_context.current_or_none() is None
    request_context.current().reply_headers["x"] = "1"
    assert request_context.current().reply_headers == {}
