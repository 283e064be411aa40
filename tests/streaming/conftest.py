"""Fixtures of the websocket door: a gateway that loses patience soon, and sockets of a real client."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.conf import settings
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.conftest import MakeKey, database_url
from tests.gateway import Gateway
from tests.journeys.conftest import HELLO, Rows, caller, client, ledger, route, store

__all__ = ["Rows", "caller", "client", "ledger", "route", "store"]

Json = dict[str, Any]
PATIENCE = 15.0  # seconds
SHORT = {
    "REDRIVE_SOCKET_INIT": "1",
    "REDRIVE_SOCKET_STALL": "1.5",
    "REDRIVE_SOCKETS_PER_KEY": "3",
    "REDRIVE_ALLOWED_ORIGINS": "https://friend.example",
}


@dataclass
class Socket:
    """One open socket."""

    connection: ClientConnection
    seen: list[Json] = field(default_factory=list)

    def say(self, **message: Any) -> None:
        """Send a message."""
        self.connection.send(json.dumps(message))

    def offend(self, frame: Any, **options: Any) -> None:
        """Send what makes the gateway close the socket, maybe before it is sent."""
        with suppress(ConnectionClosed):
            self.connection.send(frame, **options)

    def create(self, stream_id: str, model: str, **fields: Any) -> None:
        """Begin a completion."""
        request = {"model": model, "messages": HELLO, **fields}
        self.say(type="completion.create", stream_id=stream_id, request=request)

    def hear(self) -> Json:
        """The next message."""
        found: Json = json.loads(self.connection.recv(timeout=PATIENCE))
        self.seen.append(found)
        return found

    def until(self, type: str, stream_id: str | None = None) -> list[Json]:
        """What comes until a message of this type, of this stream if one is named; that included."""
        found: list[Json] = []
        while True:
            found.append(self.hear())
            if found[-1]["type"] == type and stream_id in (None, found[-1].get("stream_id")):
                return found
            assert found[-1]["type"] != "error", found[-1]

    def error(self, stream_id: str | None = None) -> Json:
        """The inner error object of the next message, which is an error."""
        found = self.hear()
        assert (found["type"], found["stream_id"]) == ("error", stream_id), found
        inner: Json = found["error"]
        return inner

    def closed(self) -> tuple[int, list[Json]]:
        """The close code, and what came before."""
        found: list[Json] = []
        try:
            while True:
                found.append(self.hear())
        except ConnectionClosed as end:
            return end.rcvd.code if end.rcvd else 1006, found


Dial = Callable[..., Socket]


def chunks_of(messages: list[Json], stream_id: str) -> list[Json]:
    """The chunks of a stream, whose numbers must be 1, 2, ..."""
    found = [one for one in messages if one["type"] == "completion.chunk" and one["stream_id"] == stream_id]
    assert [one["sequence_number"] for one in found] == list(range(1, len(found) + 1))
    return [one["chunk"] for one in found]


def text_of(chunks: list[Json]) -> str:
    """The text that chunks carry."""
    return "".join(choice["delta"].get("content") or "" for one in chunks for choice in one["choices"])


@contextmanager
def dial(gateway: Gateway, secret: str | None = None, **options: Any) -> Iterator[Socket]:
    """A socket, with a key in its header unless there is none; options: path, headers, those of the library."""
    headers = {**({"Authorization": f"Bearer {secret}"} if secret else {}), **options.pop("headers", {})}
    address = gateway.url.replace("http:", "ws:") + options.pop("path", "/v1/stream")
    with connect(address, additional_headers=headers, **{"close_timeout": 2, "proxy": None, **options}) as connection:
        yield Socket(connection)


@pytest.fixture(scope="session")
def door(django_db_setup: None, django_db_blocker: Any) -> Iterator[Gateway]:
    """A gateway whose sockets lose patience soon."""
    with django_db_blocker.unblock():
        url = database_url()
    served = Gateway({"REDRIVE_DATABASE_URL": url, "REDRIVE_REDIS_URL": settings.REDRIVE.redis_url, **SHORT})
    yield served
    served.stop()


@pytest.fixture
def dialled(transactional_db: None, door: Gateway) -> Iterator[Dial]:
    """Open a socket that is closed after the test: `dialled(secret)`; options as `dial`."""
    with ExitStack() as opened:
        yield lambda secret=None, **options: opened.enter_context(dial(door, secret, **options))


@pytest.fixture
def ready(dialled: Dial, make_key: MakeKey) -> Dial:
    """Open a socket that is ready: `ready()`, with a key of its own, or `ready(secret)`."""

    def make(secret: str | None = None, **options: Any) -> Socket:
        socket = dialled(secret or make_key()[1], **options)
        assert socket.hear()["type"] == "connection.ready"
        return socket

    return make
