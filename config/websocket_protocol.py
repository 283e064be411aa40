"""The websocket protocol of uvicorn with bounds for clients that answer nothing, and for broken handshakes.

uvicorn lets a close frame wait behind what such a client does not read, and then waits for ever for it to be read.
Used by `uvicorn --ws config.websocket_protocol:BoundedWebSocket`.
"""

import asyncio

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

LEAVE_SECONDS = 5.0  # for a client to read what waits for it and to answer our close frame
STOP_SECONDS = 1.0  # the same when the server stops
MAX_FRAGMENTS = 1024  # of one message: each costs memory, however small it is
_REFUSAL = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """Ends the connection some seconds after it was closed, whatever the client does."""

    _last: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        super().data_received(data)
        if not self.handshake_initiated:  # what came is no handshake, and nothing else will come
            self.transport.write(_REFUSAL)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        if self._last is not None:
            self._last.cancel()
        super().connection_lost(exc)

    def handle_cont(self, event: Frame) -> None:
        """A further fragment of a message."""
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
        else:
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
            self.handle_parser_exception()

    async def send(self, message: ASGISendEvent) -> None:
        """See ASGI."""
        if message["type"] == "websocket.close":
            self.writable.set()
            self._end_within(LEAVE_SECONDS)
        await super().send(message)

    def shutdown(self) -> None:
        """The server stops."""
        super().shutdown()
        self._end_within(STOP_SECONDS)

    def keepalive_timeout(self) -> None:
        """The client did not answer a ping."""
        super().keepalive_timeout()
        self._end_within(LEAVE_SECONDS)

    def _end_within(self, seconds: float) -> None:
        if self._last is not None:
            self._last.cancel()
        if not self.disconnected:
            self._last = self.loop.call_later(seconds, self.transport.abort)
