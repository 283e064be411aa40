"""The web server's port: 8000 when free, another when not, and the one that was asked for or none."""

import socket

import pytest

from apps.core.embedded import ports


@pytest.fixture
def taken():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_free_ports_are_free_and_different():
    found = ports.free_ports(5)
    assert len(set(found)) == 5
    assert all(ports.is_free("127.0.0.1", port) for port in found)


def test_a_wanted_port_that_is_busy_is_refused_by_its_number(taken):
    with pytest.raises(ports.PortBusy, match=str(taken)):
        ports.web_port("127.0.0.1", taken)


def test_a_wanted_port_that_is_free_is_taken():
    (port,) = ports.free_ports(1)
    assert ports.web_port("127.0.0.1", port) == port


def test_without_a_wish_the_port_is_free():
    assert ports.is_free("127.0.0.1", ports.web_port("127.0.0.1", None))


def test_a_busy_port_on_all_addresses_is_seen(taken):
    assert not ports.is_free("0.0.0.0", taken)


def test_a_name_becomes_an_address():
    assert ports.address_of("localhost") == "127.0.0.1"
    assert ports.address_of("::1") == "::1"


def test_an_address_of_another_machine_is_an_error():
    with pytest.raises(OSError):
        ports.is_free("192.0.2.1", 8000)
