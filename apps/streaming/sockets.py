"""The open sockets of this process: how many there may be, and a look-out for those that must be closed.

Twice a second or so: sockets whose key was revoked or has expired, whose client reads nothing, that nobody uses.
"""

import asyncio
import contextvars
from collections import Counter
from collections.abc import Coroutine
from typing import Any, Protocol
from uuid import UUID

import structlog

from apps.access.authentication import Caller, authenticate
from apps.core import errors, metrics
from apps.core.conf import RedriveSettings
from apps.streaming import closing
from apps.streaming.closing import TOO_MANY, TRY_AGAIN_LATER, CloseSocket

log = structlog.get_logger(__name__)

EVERY = 0.4  # seconds
STRANGERS = 500  # sockets that have not shown a key yet


class Socket(Protocol):
    """What the look-out knows of a session."""

    secret: str
    caller: Caller | None

    def leave(self, farewell: CloseSocket) -> None: ...

    def blocked_for(self) -> float: ...

    def unused_for(self) -> float: ...


class OpenSockets:
    """All sockets, those of known keys counted by key."""

    def __init__(self, conf: RedriveSettings) -> None:
        self.conf = conf
        self._sockets: set[Socket] = set()
        self._per_key: Counter[UUID] = Counter()
        self._looks: list[asyncio.Task[None]] = []

    def refuse_if_crowded(self) -> None:
        """Raise ServiceUnavailable where too many have not shown a key yet; those that have one are not in the way."""
        if len(self._sockets) - self._per_key.total() >= STRANGERS:
            raise errors.ServiceUnavailable("Too many websockets are being opened.")

    def add(self, socket: Socket) -> None:
        """A socket whose key is not known yet."""
        self._sockets.add(socket)
        metrics.SOCKETS.inc()
        if all(look.done() for look in self._looks):
            # In a context of their own: they serve all sockets, not the one that was first.
            empty = contextvars.Context()
            looks: list[Coroutine[Any, Any, None]] = [self._look_at_keys(), self._look_at_clients()]
            self._looks = [asyncio.get_running_loop().create_task(look, context=empty) for look in looks]

    def know(self, caller: Caller) -> None:
        """Count an added socket as one of this key. Raises CloseSocket where there are too many."""
        if self._per_key[caller.key_id] >= self.conf.sockets_per_key:
            details = {"scope": "key", "limit": self.conf.sockets_per_key, "unit": "websockets"}
            message = f"This API key may have {self.conf.sockets_per_key} websockets."
            raise CloseSocket(TOO_MANY, errors.RateLimitExceeded(message, details=details))
        if self._per_key.total() >= self.conf.max_sockets:
            raise CloseSocket(TRY_AGAIN_LATER, errors.ServiceUnavailable("There are too many websockets."))
        self._per_key[caller.key_id] += 1

    def remove(self, socket: Socket) -> None:
        """A socket that has ended."""
        if socket not in self._sockets:
            return
        self._sockets.discard(socket)
        metrics.SOCKETS.dec()
        if socket.caller is not None:
            self._per_key[socket.caller.key_id] -= 1
            if not self._per_key[socket.caller.key_id]:
                del self._per_key[socket.caller.key_id]

    async def _look_at_keys(self) -> None:
        while self._sockets:
            by_secret: dict[str, list[Socket]] = {}
            for socket in self._sockets:
                if socket.caller is not None:
                    by_secret.setdefault(socket.secret, []).append(socket)
            for secret, sockets in by_secret.items():
                try:
                    await authenticate(secret, address=None)  # from memory, unless something was changed
                except errors.InvalidApiKey as error:
                    for socket in sockets:
                        socket.leave(closing.refused(error))
                except Exception as error:
                    log.warning("keys_of_sockets_unreadable", error=type(error).__name__)
                    break  # Postgres is away: what was known stays in force
            await asyncio.sleep(EVERY)

    async def _look_at_clients(self) -> None:
        while self._sockets:
            for socket in list(self._sockets):
                if socket.blocked_for() > self.conf.socket_stall:
                    socket.leave(closing.too_slow(self.conf.socket_stall))
                elif socket.unused_for() > self.conf.socket_idle:
                    socket.leave(closing.idle(self.conf.socket_idle))
            await asyncio.sleep(EVERY)
