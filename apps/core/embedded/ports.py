"""Which TCP ports are free, asked of the kernel."""

import errno
import socket
from contextlib import ExitStack

DEFAULT_WEB_PORT = 8000


class PortBusy(Exception):
    """The port that was asked for belongs to another program."""


def free_ports(count: int) -> list[int]:
    """`count` different free ports of the loopback interface."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:  # all stay bound until all are chosen, so none comes twice
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now. Raises OSError when `host` is no address of this machine."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger do not make it busy
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def address_of(host: str) -> str:
    """The IP address of a host name or address, IPv4 where there is a choice. Raises OSError when there is none."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return str(min(found, key=lambda each: each[0] != socket.AF_INET)[4][0])


def web_port(host: str, wanted: int | None) -> int:
    """The port of the web server: `wanted`, or else 8000, or else any free one.

    Raises PortBusy when `wanted` is taken, OSError when `host` is no address of this machine.
    """
    if wanted is not None:
        if not is_free(host, wanted):
            raise PortBusy(f"port {wanted} on {host} is busy. Choose another with --port, or leave --port out.")
        return wanted
    if is_free(host, DEFAULT_WEB_PORT):
        return DEFAULT_WEB_PORT
    return free_ports(1)[0]
