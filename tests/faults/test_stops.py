"""The gateway stops, kindly or not, right after its answers: what of the ledger is in Postgres then."""

import signal
import threading

from tests.faults.conftest import Serve
from tests.faults.stores import Set, Stores
from tests.journeys.conftest import Client
from tests.journeys.wire import together


def test_a_graceful_stop_right_after_the_answers_loses_no_row(stores: Stores, serve: Serve, mine: Set) -> None:
    gateway = serve()
    client = Client(gateway.url, mine.plain)
    assert together(20, lambda index: client.chat(mine.model, stream=index % 2 == 0).status) == [200] * 20
    gateway.stop()
    assert len(stores.rows(mine.model)) == 20


def test_kill_9_loses_at_most_the_rows_of_the_last_100_ms(stores: Stores, serve: Serve, mine: Set) -> None:
    gateway = serve()
    client = Client(gateway.url, mine.plain)
    assert together(20, lambda _: client.chat(mine.model).status) == [200] * 20
    threading.Event().wait(0.3)  # three times what the promise allows
    together(10, lambda _: client.chat(mine.model).status)
    gateway.stop(signal.SIGKILL)
    assert len(stores.rows(mine.model)) >= 20
