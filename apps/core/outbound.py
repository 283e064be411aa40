"""Calls addresses that clients have named, and none that is not public: a guard against server-side request forgery.

A name is resolved once, each of its addresses is checked, and only those are connected to: a DNS answer that changes
changes nothing. Redirects are not followed; no proxy, no cookie; time and size are bounded.
"""

import asyncio
import functools
import ipaddress
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from django.conf import settings
from yarl import URL

from apps.core.addresses import Address, AllowList, is_name, is_public

LONGEST_URL = 2048
TIMEOUT = 15.0  # seconds of a whole call, the look-up of its name included
SHOWN = 2048  # bytes of an answer that are read
READING = 3.0  # seconds that those may take once the status is known
LOOK = 0.5  # seconds that a look at a name may take
LOOKED = 60.0  # seconds for which it counts
DNS_THREADS = 16

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

# Ports of other protocols, which a request might be mistaken for (Fetch standard, "port blocking").
BAD_PORTS = frozenset(
    (1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
     110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530,
     531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190,
     5060, 5061, 6000, 6379, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080)
)  # fmt: skip


class AddressRefused(Exception):
    """The URL leads where clients may not have us call; the message is for the client."""


class OutboundFailed(Exception):
    """No answer came. kind: timeout, dns, connect, tls or protocol."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered. text: its first 2 KiB, printable, whatever bytes they were."""

    status: int
    text: str


class Outbound:
    """Calls public addresses, and those of the allow-list. resolve: name and port -> addresses; raises OSError."""

    def __init__(self, allow: AllowList, *, resolve: "Resolve | None" = None, timeout: float = TIMEOUT) -> None:
        self._allow = allow
        self._resolve = resolve or _system_resolve
        self._timeout = timeout
        self._looked: dict[tuple[str, int], tuple[float, str]] = {}

    def parse(self, url: str) -> URL:
        """The URL, if its form is right and its host is no address of ours. No look-up. Raises AddressRefused."""
        if not url.isprintable() or " " in url or "\\" in url:
            raise AddressRefused("A URL holds no spaces, backslashes or control characters.")
        try:
            found = URL(url)
            host, port = (found.raw_host or "").lower(), found.port
        except (ValueError, TypeError):
            raise AddressRefused("This is not a URL.") from None
        if max(len(url.encode()), len(str(found))) > LONGEST_URL:
            raise AddressRefused(f"A URL may have {LONGEST_URL} characters, as they are sent.")
        if found.scheme not in {"http", "https"} or not host:
            raise AddressRefused("Give an http:// or https:// URL with a host.")
        if "@" in found.raw_authority:
            raise AddressRefused("No user and no password: the signature says who calls.")
        if not port or port > 65_535 or (port in BAD_PORTS and not self._allow.has_name(host, port)):
            raise AddressRefused("This port is not for web servers.")
        self._check_host(host, port)
        return found

    async def look(self, url: str) -> None:
        """Refuse a name that leads inside, as far as is known soon. Raises AddressRefused.

        Where the look-up fails or takes long, nothing is said: `post` checks again, and its answer counts.
        """
        found = self.parse(url)
        host, port = str(found.raw_host), found.port or 0
        until, words = self._looked.get((host, port), (0.0, ""))
        if time.monotonic() > until:
            if len(self._looked) > 1000:
                self._looked.clear()
            words = ""
            self._note(host, port, words)  # those who come meanwhile need not look too
            try:
                async with asyncio.timeout(LOOK):
                    await self._addresses(found)
            except AddressRefused as refused:
                words = str(refused)
                self._note(host, port, words)
            except (OutboundFailed, TimeoutError):
                pass
        if words:
            raise AddressRefused(words)

    async def post(self, url: str, *, body: bytes, headers: Mapping[str, str]) -> Answer:
        """POST a body; any status is an answer. Raises AddressRefused, OutboundFailed."""
        try:
            async with asyncio.timeout(self._timeout):
                target = self.parse(url)
                return await _send(target, await self._addresses(target), body, headers)
        except TimeoutError:
            raise OutboundFailed("timeout", f"it did not answer within {self._timeout:g} s") from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise OutboundFailed("tls", f"its certificate is not valid: {error.certificate_error}"[:300]) from None
        except aiohttp.ClientSSLError as error:
            raise OutboundFailed("tls", f"TLS failed: {error.strerror or error}"[:300]) from None
        except aiohttp.ServerDisconnectedError:
            raise OutboundFailed("connect", "it closed the connection without an answer") from None
        except OSError as error:  # also aiohttp's own for a connection that was not made
            raise OutboundFailed(
                "connect", f"the connection failed: {error.strerror or type(error).__name__}"
            ) from None
        except (aiohttp.ClientError, ValueError) as error:
            raise OutboundFailed("protocol", f"its answer was not HTTP: {type(error).__name__}") from None

    def _note(self, host: str, port: int, words: str) -> None:
        self._looked[host, port] = (time.monotonic() + LOOKED, words)

    def _check_host(self, host: str, port: int) -> None:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            if not is_name(host):
                raise AddressRefused("The host is neither a name nor an address in its usual form.") from None
            name = host.removesuffix(".")
            if (name == "localhost" or name.endswith(".localhost")) and not self._allow.has_name(host, port):
                raise AddressRefused(_inside(host)) from None
        else:
            self._check(host, address, port)

    def _check(self, host: str, address: Address, port: int) -> None:
        if not is_public(address) and not self._allow.has_address(address, port):
            raise AddressRefused(_inside(host))

    async def _addresses(self, target: URL) -> list[Address]:
        """All addresses of the URL's host, each checked. Raises AddressRefused, OutboundFailed."""
        host, port = str(target.raw_host), target.port or 0
        try:
            return [ipaddress.ip_address(host)]  # checked by `parse`
        except ValueError:
            pass
        try:
            texts = await self._resolve(host, port)
        except (OSError, UnicodeError):
            raise OutboundFailed("dns", "its name has no address") from None
        found = [ipaddress.ip_address(text) for text in dict.fromkeys(texts)]
        if not found:
            raise OutboundFailed("dns", "its name has no address")
        if not self._allow.has_name(host, port):
            for address in found:  # one that leads inside is enough: nobody needs such a name
                self._check(host, address, port)
        return found


def outbound() -> Outbound:
    """The process's one, with the allow-list of the settings."""
    return _of(tuple(settings.REDRIVE.outbound_allow))


@functools.cache
def _of(allow: tuple[str, ...]) -> Outbound:
    return Outbound(AllowList.parse(allow))


def _inside(host: str) -> str:
    return f"{host[:100]} leads to an address that is not public (the operator may allow it: REDRIVE_OUTBOUND_ALLOW)."


class _Pinned(AbstractResolver):
    """Answers with the addresses that were checked, and never asks again."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        pass


async def _send(target: URL, addresses: Sequence[Address], body: bytes, headers: Mapping[str, str]) -> Answer:
    def open_socket(info: Any) -> socket.socket:
        """The last word, whichever way led here."""
        family, kind, proto, _, place = info
        if ipaddress.ip_address(place[0]) not in addresses:
            raise OSError("not an address that was checked")
        return socket.socket(family, kind, proto)

    # A connection of its own: one that another project's webhook has opened is not used for this one's.
    connector = aiohttp.TCPConnector(
        resolver=_Pinned(addresses), use_dns_cache=False, force_close=True, socket_factory=open_socket
    )
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),  # the caller's
        trust_env=False,
        auto_decompress=False,  # a small answer could unpack to a huge one
        read_bufsize=2 * SHOWN,
        headers={"Accept-Encoding": "identity"},
    )
    async with session, session.post(target, data=body, headers=headers, allow_redirects=False) as response:
        text = await _beginning(response)
        response.close()  # what is left of it is not read
        return Answer(response.status, text)


async def _beginning(response: aiohttp.ClientResponse) -> str:
    read = bytearray()
    try:
        async with asyncio.timeout(READING):
            while len(read) < SHOWN and (piece := await response.content.read(SHOWN - len(read))):
                read += piece
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass  # the status has come, and it alone decides
    text = bytes(read).decode("utf-8", "replace")
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    # Of their own: names that resolve slowly must not hold up those of the model providers.
    return ThreadPoolExecutor(DNS_THREADS, thread_name_prefix="redrive-dns")


async def _system_resolve(host: str, port: int) -> list[str]:
    call = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_threads(), call)
    return [str(address[0]) for *_, address in found]
