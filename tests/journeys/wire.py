"""Plain HTTP as any client speaks it, with no SDK between: `call`, `open_stream`, and readers of the replies."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from typing import Any, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")
ERROR_KEYS = {"message", "type", "param", "code", "request_id", "details"}
TYPES = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}


@dataclass
class Reply:
    """One whole reply. Header names in lower case; seconds: how long it took."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The inner error object."""
        found: dict[str, Any] = self.json()["error"]
        return found

    @property
    def request_id(self) -> str:
        """The id in the header."""
        return self.headers["x-request-id"]

    @property
    def frames(self) -> list[Any]:
        """The data of each server-sent event: parsed, or the text `[DONE]`."""
        return frames(self.body)


def frames(body: bytes) -> list[Any]:
    """The data of each server-sent event: parsed, or the text `[DONE]`."""
    found = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]
    return [data if data == "[DONE]" else json.loads(data) for data in found]


def text_of(events: list[Any]) -> str:
    """The text that a stream's chunks carry."""
    chunks = [event for event in events if isinstance(event, dict) and event.get("choices")]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def send(
    url: str,
    method: str,
    path: str,
    *,
    key: str | None = None,
    payload: Any = None,
    body: bytes | Iterator[bytes] | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 30,
) -> HTTPConnection:
    """Send a request and leave the reply unread."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    given = {"Authorization": f"Bearer {key}"} if key is not None else {}
    if payload is not None:
        body = json.dumps(payload).encode()
    if body is not None:
        given["Content-Type"] = "application/json"
    connection.request(method, path, body=body, headers={**given, **(headers or {})})
    return connection


def call(url: str, method: str, path: str, **options: Any) -> Reply:
    """One request and its whole reply; options as `send`."""
    started = time.monotonic()
    connection = send(url, method, path, **options)
    try:
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    found = {name.lower(): value for name, value in response.getheaders()}
    return Reply(response.status, found, body, time.monotonic() - started)


def open_stream(url: str, path: str, **options: Any) -> tuple[HTTPConnection, HTTPResponse]:
    """A POST whose reply has begun; close the response and the connection to leave."""
    connection = send(url, "POST", path, **options)
    return connection, connection.getresponse()


def leave(connection: HTTPConnection, response: HTTPResponse | None = None) -> None:
    """Close the socket, as a client does that goes away."""
    connection.close()
    if response is not None:
        response.close()


def assert_error(reply: Reply, status: int, code: str, *, param: str | None = None, any_param: bool = False) -> None:
    """The reply is the one error body, with all six keys, and says what is expected."""
    assert (reply.status, reply.headers.get("content-type")) == (status, "application/json"), reply
    assert set(reply.json()) == {"error"}
    assert_error_object(reply.error, status, code, request_id=reply.request_id)
    assert any_param or reply.error["param"] == param, reply.error


def assert_error_object(error: dict[str, Any], status: int, code: str, *, request_id: str) -> None:
    """The inner error object: all six keys of the right types, and no insides of ours."""
    assert set(error) == ERROR_KEYS, error
    expected = TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    assert (error["code"], error["type"], error["request_id"]) == (code, expected, request_id), error
    assert isinstance(error["message"], str)
    assert error["message"]
    assert error["param"] is None or isinstance(error["param"], str)
    assert error["details"] is None or isinstance(error["details"], dict)
    for leak in ("Traceback", "SELECT ", "psycopg", "site-packages", 'File "', "pydantic"):
        assert leak not in json.dumps(error), error


def eventually(look: Callable[[], T], within: float, every: float = 0.02) -> T:
    """What `look` returns once that is true; its last answer when `within` seconds are over."""
    tick, end = threading.Event(), time.monotonic() + within
    while True:
        found = look()
        if found or time.monotonic() >= end:
            return found
        tick.wait(every)


def together(count: int, work: Callable[[int], T], *, meanwhile: Callable[[], object] = lambda: None) -> list[T]:
    """`work(0) .. work(count - 1)` in threads that start at one moment, `meanwhile()` here; the results in order."""
    barrier = threading.Barrier(count)

    def run(index: int) -> T:
        barrier.wait(30)
        return work(index)

    with ThreadPoolExecutor(count) as pool:
        running = [pool.submit(run, index) for index in range(count)]
        meanwhile()
        return [done.result(60) for done in running]
