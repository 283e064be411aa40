"""A client that does not read: the provider is held back, memory stays, and after a while the socket is closed."""

import socket as sockets
import threading
from collections.abc import Iterator

import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from tests.conftest import MakeRoute
from tests.gateway import Gateway
from tests.journeys.scripts import Flood
from tests.journeys.wire import eventually
from tests.streaming.conftest import Dial, Rows, Socket
from tests.upstream import Upstream, stream

pytestmark = pytest.mark.django_db(transaction=True)
MIB = 1024 * 1024


@pytest.fixture
def narrow(ready: Dial, door: Gateway) -> Iterator[Socket]:
    """A ready socket with small buffers, whose client reads a few frames ahead and then no more."""
    raw = sockets.socket()
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 8192)
    raw.connect(("127.0.0.1", door.port))
    yield ready(sock=raw, max_queue=2)
    raw.close()


def resident(gateway: Gateway) -> int:
    """Bytes of memory of the gateway."""
    found: int = psutil.Process(gateway.process.pid).memory_info().rss
    return found


def test_a_client_that_reads_nothing_is_closed_1013_and_lets_go_of_its_upstream(
    narrow: Socket, door: Gateway, route: MakeRoute, upstream: Upstream, ledger: Rows
) -> None:
    model, flood, before = route(), Flood(), resident(door)
    upstream.script(model, flood.reply)
    narrow.create("a", model)
    assert flood.gone.wait(10)  # 1.5 s of stall
    assert flood.sent < 32 * MIB  # 100 pieces of 4 KiB, and what sockets hold
    assert resident(door) - before < 32 * MIB
    assert ledger(model)[0].outcome == "cancelled"
    code, messages = narrow.closed()  # it reads again before the connection is cut
    assert code == 1013
    assert {one["type"] for one in messages} == {"completion.chunk"}


def test_a_client_that_never_reads_again_is_cut_off(
    narrow: Socket, door: Gateway, route: MakeRoute, upstream: Upstream
) -> None:
    model, flood = route(), Flood()
    upstream.script(model, flood.reply)
    port = narrow.connection.local_address[1]
    narrow.create("a", model)
    assert flood.gone.wait(10)

    def is_cut() -> bool:
        found = psutil.Process(door.process.pid).net_connections("tcp")
        return not any(one.raddr and one.raddr.port == port for one in found)

    assert not is_cut()
    assert eventually(is_cut, within=15, every=0.2)  # 5 s after the close
    with pytest.raises(ConnectionClosed):
        while True:
            narrow.hear()


def test_one_who_reads_slowly_gets_everything(ready: Dial, route: MakeRoute, upstream: Upstream) -> None:
    model, pause = route(), threading.Event()
    upstream.script(model, stream(*[f"{index:05d}" + "x" * 20_000 for index in range(300)]))
    socket = ready(max_queue=1)
    socket.create("a", model)
    number = 0
    while (message := socket.hear())["type"] == "completion.chunk":
        number += 1
        assert message["sequence_number"] == number
        pause.wait(0.005)
    assert (message["type"], number) == ("completion.completed", 301)
