"""One socket from its first message to its last: who it belongs to, what its messages start, how it ends."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from apps.access import way_in
from apps.access.authentication import Caller, authenticate
from apps.core import error_payload, errors, metrics, request_context
from apps.streaming import closing, frames, schemas, work
from apps.streaming.closing import BAD_MESSAGE, BINARY, INIT_TIMEOUT, UNAUTHORISED, CloseSocket
from apps.streaming.outbox import Outbox
from apps.streaming.sockets import OpenSockets
from apps.streaming.streams import CHAT, TASK_CANCEL, TASK_EVENTS, Streams

log = structlog.get_logger("redrive.access")

LAST_WORDS = 1.0  # seconds a client gets to read why it is closed
COUNTED_CODES = frozenset({*closing.REASONS, 1001, 1005, 1006, 1007, 1009, 1011, 1012})


class Session:
    """Knows nothing of the server. send, close: write a text frame, a close frame; OSError where the client is gone."""

    def __init__(
        self,
        sockets: OpenSockets,
        *,
        send: Callable[[str], Awaitable[None]],
        close: Callable[[int, str], Awaitable[None]],
        end_user: str,
    ) -> None:
        self.secret = ""
        self.caller: Caller | None = None
        self._sockets = sockets
        self._close = close
        self._end_user = end_user
        self._context = request_context.current()
        self._loop = asyncio.get_running_loop()
        self._used_at = self._loop.time()
        self._outbox = Outbox(send)
        self._streams = Streams(
            most=sockets.conf.socket_streams,
            know_caller=self._know_caller,
            put=self._outbox.put,
            leave=self.leave,
            address=self._context.address,
        )
        self._has_ended = False
        self._farewell: CloseSocket | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._init_timer = self._loop.call_later(sockets.conf.socket_init, self._init_is_late)
        sockets.add(self)

    async def authenticate(self, authorization: str) -> None:
        """Make this the socket of a key, as its Authorization header names it, or close it."""
        try:
            caller = await way_in.identify(authorization)
            self._sockets.know(caller)
        except CloseSocket as farewell:
            self.leave(farewell)
        except Exception as error:
            known = error_payload.translate(error)
            if known is None:
                raise
            self.leave(closing.refused(known))
        else:
            self.caller, self.secret = caller, authorization.partition(" ")[2].strip()
            self._init_timer.cancel()
            await self._outbox.put(frames.ready(self._context.request_id, self._sockets.conf.socket_streams))

    async def take(self, text: str | None) -> None:
        """Act on one message; None: it was binary."""
        if self._leaving is not None:
            return
        self._used_at = self._loop.time()
        try:
            if text is None:
                raise CloseSocket(BINARY, errors.InvalidRequest("Send text frames."))
            await self._act(await schemas.read(text))
        except errors.InvalidRequest as error:
            self.leave(CloseSocket(BAD_MESSAGE, error))
        except CloseSocket as farewell:
            self.leave(farewell)

    async def _act(self, message: schemas.ClientMessage) -> None:
        match message:
            case schemas.ConnectionInit():
                if self.caller is not None:
                    raise errors.InvalidRequest("The key of this socket is known already.", param="type")
                await self.authenticate(f"Bearer {message.payload.api_key}")
            case _ if self.caller is None:
                raise CloseSocket(UNAUTHORISED, errors.InvalidApiKey("The first message is `connection_init`."))
            case schemas.CreateCompletion():
                self._streams.start(message.stream_id, CHAT, work.completion(message, end_user=self._end_user))
            case schemas.ResumeCompletion():
                self._streams.start(message.stream_id, CHAT, work.resumption(message))
            case schemas.SubscribeTask():
                self._streams.start(message.stream_id, TASK_EVENTS, work.subscription(message))
            case schemas.CancelTask():
                self._streams.start(None, TASK_CANCEL, work.cancelling(message))
            case schemas.CancelCompletion():
                self._streams.cancel(message.stream_id)
            case schemas.Ping():
                await self._outbox.put(frames.PONG)

    def leave(self, farewell: CloseSocket) -> None:
        """Close the socket; the first reason counts."""
        if self._leaving is None and not self._has_ended:
            self._farewell = farewell
            self._streams.abort()
            self._leaving = self._loop.create_task(self._leave(farewell))

    async def end(self, code: int) -> None:
        """The connection is over: all that it started is ended and booked. code: of the close frame."""
        if self._has_ended:
            return
        self._has_ended = True
        self._init_timer.cancel()
        if self._leaving is not None:
            await asyncio.wait({self._leaving}, timeout=LAST_WORDS * 2)
        await self._outbox.close()
        await self._streams.end()
        self._sockets.remove(self)
        code = self._farewell.code if self._farewell is not None else code
        metrics.SOCKET_CLOSES.labels(str(code) if code in COUNTED_CODES else "other").inc()
        log.info("socket", code=code, streams=self._streams.started)

    def blocked_for(self) -> float:
        """Seconds for which the client has read nothing of what waits for it."""
        return self._outbox.blocked_for()

    def unused_for(self) -> float:
        """Seconds without a message and without a stream."""
        if self._streams:
            self._used_at = self._loop.time()
        return self._loop.time() - self._used_at

    async def _leave(self, farewell: CloseSocket) -> None:
        last = frames.error(farewell.error, request_id=self._context.request_id)
        is_slow = farewell.code == closing.TRY_AGAIN_LATER and self.blocked_for() > 0
        await self._outbox.finish(last, within=0 if is_slow else LAST_WORDS)
        with contextlib.suppress(OSError, RuntimeError):  # it was closed meanwhile
            await self._close(farewell.code, farewell.reason)

    async def _know_caller(self) -> Caller:
        """The caller as it is now; from memory, unless something was changed."""
        try:
            return await authenticate(self.secret, address=None)
        except errors.InvalidApiKey as error:
            raise closing.refused(error) from None

    def _init_is_late(self) -> None:
        seconds = self._sockets.conf.socket_init
        message = f"Send `connection_init` within {seconds:g} seconds."
        self.leave(CloseSocket(INIT_TIMEOUT, errors.InvalidApiKey(message)))
