"""How sockets end that have done nothing wrong: keys that are revoked, a server that stops, silence, another client."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.utils import timezone

from apps.access import keys
from apps.access.models import ApiKey
from apps.completions.models import LedgerEntry
from apps.streaming.sockets import STRANGERS
from tests.conftest import MakeKey, MakeRoute, database_url
from tests.gateway import Gateway
from tests.streaming.conftest import Dial, Rows, dial
from tests.upstream import Upstream, stream

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_key_that_is_disabled_closes_its_sockets_within_a_second_and_their_streams(
    ready: Dial, make_key: MakeKey, route: MakeRoute, upstream: Upstream, ledger: Rows
) -> None:
    (row, secret), model, gone = make_key(), route(), threading.Event()
    upstream.script(model, stream("12345678", then_hang=True, gone=gone))
    busy, idle, other = ready(secret), ready(secret), ready()
    busy.create("a", model)
    busy.until("completion.chunk")
    keys.set_disabled(key=row, disabled=True)
    assert gone.wait(3)
    for one in (busy, idle):
        code, messages = one.closed()
        assert (code, messages[-1]["error"]["code"]) == (4401, "invalid_api_key")
    assert ledger(model)[0].outcome == "cancelled"
    other.say(type="ping")
    assert other.hear()["type"] == "pong"


def test_a_key_that_expires_closes_its_socket(ready: Dial, make_key: MakeKey) -> None:
    socket = ready(make_key(expires_at=timezone.now() + timedelta(seconds=1.5))[1])
    assert socket.closed()[0] == 4401


def test_a_changed_limit_holds_for_the_next_stream_of_an_open_socket(
    ready: Dial, make_key: MakeKey, route: MakeRoute
) -> None:
    (row, secret), model, pause = make_key(), route(), threading.Event()
    socket = ready(secret)
    ApiKey.objects.filter(pk=row.pk).update(allowed_models=["nothing"])
    for _ in range(30):
        socket.create("a", model)
        last = socket.until("completion.completed") if socket.hear()["type"] != "error" else None
        if last is None:
            break
        pause.wait(0.1)
    assert socket.seen[-1]["error"]["code"] == "permission_denied"


@pytest.fixture
def mortal(transactional_db: None) -> Iterator[Gateway]:
    """A gateway for this test alone, with short times."""
    environment = {"REDRIVE_DATABASE_URL": database_url(), "REDRIVE_REDIS_URL": settings.REDRIVE.redis_url}
    served = Gateway({**environment, "REDRIVE_SOCKET_IDLE": "1", "REDRIVE_MAX_SOCKETS": "2"})
    yield served
    served.stop()


def test_idle_crowded_and_stopped(mortal: Gateway, make_key: MakeKey, route: MakeRoute, upstream: Upstream) -> None:
    model, gone, secret = route(), threading.Event(), make_key()[1]
    upstream.script(model, stream("12345678", then_hang=True, gone=gone))
    with ExitStack() as opened:
        idle, busy = (opened.enter_context(dial(mortal, secret)) for _ in range(2))
        assert [socket.hear()["type"] for socket in (idle, busy)] == ["connection.ready"] * 2
        one_more = opened.enter_context(dial(mortal, secret))
        code, messages = one_more.closed()
        assert (code, messages[0]["error"]["code"]) == (1013, "service_unavailable")
        busy.create("a", model)
        assert busy.hear()["type"] == "completion.chunk"
        code, messages = idle.closed()
        assert (code, messages[-1]["error"]["code"]) == (1000, "timeout")
        assert not gone.is_set()  # one with a stream is not idle
        mortal.process.terminate()
        assert busy.closed() == (1012, [])
        assert gone.wait(3)
        assert mortal.process.wait(8) is not None
    assert LedgerEntry.objects.get(model=model).outcome == "cancelled"


def open_without_a_key(gateway: Gateway) -> tuple[socket.socket, str]:
    """A socket that shows no key, and the first line of the reply to its handshake."""
    parts = urlsplit(gateway.url)
    opened = socket.create_connection((parts.hostname, parts.port), 10)
    opened.sendall(
        b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    return opened, opened.recv(1024).split(b"\r\n")[0].decode()


def test_strangers_keep_nobody_out_who_brings_a_key(mortal: Gateway, make_key: MakeKey) -> None:
    secret = make_key()[1]
    strangers = [open_without_a_key(mortal) for _ in range(STRANGERS + 1)]
    assert {line.split()[1] for _, line in strangers[:STRANGERS]} == {"101"}
    assert strangers[-1][1].split()[1] == "503"
    with dial(mortal, secret) as known:
        assert known.hear()["type"] == "connection.ready"
    for opened, _ in strangers:
        opened.close()


def test_guessing_keys_is_closed_4429_after_thirty(mortal: Gateway, make_key: MakeKey) -> None:
    codes = []
    for index in range(31):
        with dial(mortal, f"rd_guess{index}") as socket:
            codes.append(socket.closed()[0])
    assert codes == [4401] * 30 + [4429]
