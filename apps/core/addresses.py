"""Says which network addresses clients may have us call: public ones, and those that the operator has allowed.

Sources: IANA's IPv4 and IPv6 Special-Purpose Address Registries; the metadata services of the large clouds.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
# Beyond what `is_global` of the oldest supported Python knows.
_NEVER_V4 = [
    ip_network(text)
    for text in (
        "192.0.0.0/24",  # IETF protocol assignments; Oracle's metadata
        "192.88.99.0/24",  # relays of 6to4
        "224.0.0.0/4",
        "240.0.0.0/4",
        "168.63.129.16/32",  # Azure's own services, at a public address
    )
]
_GLOBAL_V6 = ip_network("2000::/3")  # outside it: loopback, local, multicast, and IPv4 in disguise (mapped, NAT64)
_NEVER_V6 = [
    ip_network(text)
    for text in (
        "2001::/23",  # Teredo, ORCHID and other protocols
        "2001:db8::/32",
        "2002::/16",  # 6to4: IPv4 in disguise
        "3fff::/20",
    )
]


def is_public(address: Address) -> bool:
    """Whether an address belongs to the open internet."""
    if isinstance(address, IPv4Address):
        return address.is_global and not any(address in network for network in _NEVER_V4)
    if address.scope_id is not None:
        return False
    return address in _GLOBAL_V6 and not any(address in network for network in _NEVER_V6)


@dataclass(frozen=True, slots=True)
class AllowList:
    """What an operator allows beside public addresses: names and networks, each with one port or (None) with all."""

    names: frozenset[tuple[str, int | None]]
    networks: tuple[tuple[Network, int | None], ...]

    @classmethod
    def parse(cls, entries: Iterable[str]) -> "AllowList":
        """Of `host`, `host:port`, `10.0.0.7:8000`, `[::1]:8000` and `10.0.0.0/8`. Raises ValueError."""
        names, networks = set(), []
        for entry in entries:
            host, port = _entry(entry)
            if isinstance(host, str):
                names.add((host, port))
            else:
                networks.append((host, port))
        return cls(frozenset(names), tuple(networks))

    def has_name(self, name: str, port: int) -> bool:
        """Whether a host's name is allowed, wherever it leads."""
        name = name.lower().removesuffix(".")
        return (name, None) in self.names or (name, port) in self.names

    def has_address(self, address: Address, port: int) -> bool:
        """Whether an address is allowed."""
        return any(address in network and only in (None, port) for network, only in self.networks)


def _entry(text: str) -> tuple[str | Network, int | None]:
    try:
        return ip_network(text, strict=False), None
    except ValueError:
        pass
    parts = urlsplit(f"//{text}")
    host = (parts.hostname or "").removesuffix(".")
    if parts.netloc != text or "@" in text or text.endswith(":") or not host:
        raise ValueError(f"{text!r} is no host, host:port, address or CIDR network")
    try:
        return ip_network(ip_address(host)), parts.port
    except ValueError:
        if not is_name(host):
            raise ValueError(f"{text!r} is no host, host:port, address or CIDR network") from None
    return host, parts.port


def is_name(host: str) -> bool:
    """Whether it is a host's name; one that ends in a number is none: `127.1` and `0x7f.1` are odd addresses."""
    if not _NAME.fullmatch(host) or len(host) > 253:
        return False
    return not re.fullmatch(r"[0-9]+|0x[0-9a-f]*", host.removesuffix(".").rpartition(".")[2])
