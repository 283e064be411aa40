"""A client that leaves, or does not read: the provider is let go of, what was produced is billed, nothing grows."""

import socket
import threading
from urllib.parse import urlsplit

import psutil
import pytest

from tests.conftest import MakeRoute
from tests.gateway import Gateway
from tests.journeys.conftest import Client, Rows
from tests.journeys.scripts import Flood
from tests.journeys.wire import frames, leave, text_of
from tests.upstream import Upstream, hang, stream

pytestmark = pytest.mark.django_db(transaction=True)
MIB = 1024 * 1024


def test_a_client_that_leaves_a_stream_ends_it_upstream_and_pays_for_what_came(
    route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows
) -> None:
    model, gone = route(input_usd_per_million=1, output_usd_per_million=1), threading.Event()
    upstream.script(model, stream(*["12345678"] * 500, every=0.02, gone=gone))
    connection, response = client.open_chat(model)
    for _ in range(6):
        response.readline()
    leave(connection, response)
    assert gone.wait(3)
    [row] = ledger(model)
    assert (row.outcome, row.estimated, row.stream, row.status) == ("cancelled", True, True, 200)
    assert row.input_tokens > 0
    assert 2 <= row.output_tokens < 500
    assert row.cost_nusd == 1000 * (row.input_tokens + row.output_tokens)
    assert row.latency_ms < 5000


def test_a_client_that_leaves_a_silent_stream_ends_it_upstream(
    route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows
) -> None:
    model, gone = route(), threading.Event()
    upstream.script(model, stream("12345678", then_hang=True, gone=gone))
    connection, response = client.open_chat(model)
    response.readline()
    leave(connection, response)
    assert gone.wait(3)
    [row] = ledger(model)
    assert (row.outcome, row.estimated, row.output_tokens) == ("cancelled", True, 2)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_client_that_leaves_before_the_answer_ends_it_upstream(
    streamed: bool, route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows
) -> None:
    model, started, gone = route(), threading.Event(), threading.Event()
    upstream.script(model, hang(started, gone))
    connection = client.begin_chat(model, stream=streamed)
    assert started.wait(5)
    leave(connection)
    assert gone.wait(3)
    [row] = ledger(model)
    assert (row.outcome, row.estimated, row.stream, row.status) == ("cancelled", True, streamed, None)
    assert row.input_tokens > 0
    as_if_written = row.latency_ms / 1000 * 50  # of a latency that was rounded to whole milliseconds
    assert abs(row.output_tokens - as_if_written) <= 1 or row.latency_ms > 5000
    assert len(upstream.requests(model)) == 1


def test_a_client_that_leaves_does_not_speak_against_the_upstream(
    route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    model = route(provider={"breaker_failures": 1})
    for _ in range(3):
        gone = threading.Event()
        upstream.script(model, stream("x", then_hang=True, gone=gone))
        leave(*client.open_chat(model))
        assert gone.wait(3)
    upstream.script(model, stream("x"))
    assert client.chat(model, stream=True).status == 200


def resident(gateway: Gateway) -> int:
    """Bytes of memory of all the gateway's processes."""
    parent = psutil.Process(gateway.process.pid)
    return sum(process.memory_info().rss for process in [parent, *parent.children(recursive=True)])


def open_without_reading(client: Client, model: str) -> socket.socket:
    """A streamed chat over a socket with small buffers, of which nothing is read."""
    parts = urlsplit(client.url)
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    taken.connect((parts.hostname, parts.port))
    body = b'{"model": "%s", "stream": true, "messages": [{"role": "user", "content": "x"}]}' % model.encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.secret}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    taken.sendall(head.encode() + body)
    return taken


def test_a_client_that_does_not_read_stops_the_upstream_and_costs_no_memory(
    route: MakeRoute, client: Client, upstream: Upstream, gateway: Gateway, ledger: Rows
) -> None:
    model, flood = route(), Flood()
    upstream.script(model, flood.reply)
    before = resident(gateway)
    taken = open_without_reading(client, model)
    pause = threading.Event()
    seen = [-1, -2, -3]
    for _ in range(30):
        if len(set(seen[-3:])) == 1:
            break
        pause.wait(0.25)
        seen.append(flood.sent)
    assert len(set(seen[-3:])) == 1, f"the upstream still sends, {flood.sent / MIB:.0f} MiB so far"
    assert 0 < flood.sent < 32 * MIB  # 100 pieces of 4 KiB, and what sockets hold
    assert resident(gateway) - before < 32 * MIB
    assert client.call("GET", "/v1/models").seconds < 3
    taken.close()
    assert flood.gone.wait(3)
    assert ledger(model)[0].outcome == "cancelled"


def test_a_slow_reader_still_gets_everything(route: MakeRoute, client: Client, upstream: Upstream) -> None:
    model = route()
    upstream.script(model, stream(*[f"{index:05d}" + "x" * 20_000 for index in range(500)]))
    connection, response = client.open_chat(model)
    pause, body = threading.Event(), b""
    while part := response.read1(256 * 1024):
        body += part
        pause.wait(0.002)
    connection.close()
    assert body.endswith(b"data: [DONE]\n\n")
    assert text_of(frames(body)) == "".join(f"{index:05d}" + "x" * 20_000 for index in range(500))
