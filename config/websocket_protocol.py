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
    _failed = False

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._failed:
            return
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
            self._fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments")

    def send_receive_event_to_app(self) -> None:
        """A message is complete."""
        try:
            if self.curr_msg_data_type == "text":
                b"".join(self.frames).decode()
        except UnicodeDecodeError:
            self._fail(CloseCode.INVALID_DATA, "not UTF-8")  # uvicorn would log the client's mistake as an error
        else:
            super().send_receive_event_to_app()

    def handle_parser_exception(self) -> None:
        """The client broke the protocol. What else it sends is read and dropped for a while: a connection that is
        closed before ends with a reset, and the client would not see why."""
        if self._failed:
            return
        self._failed = self.close_sent = True
        assert self.conn.close_sent is not None
        self.queue.put_nowait({"type": "websocket.disconnect", "code": self.conn.close_sent.code})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.write_eof()
        self.transport.resume_reading()
        self._end_within(LEAVE_SECONDS)
        self.close_timer = self._last  # uvicorn closes at once where there is none

    async def send(self, message: ASGISendEvent) -> None:
        """See ASGI."""
        if message["type"] == "websocket.close":
            self.writable.set()
            self._end_within(LEAVE_SECONDS)
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # a refusal is an answer, too: uvicorn would log an error

    def shutdown(self) -> None:
        """The server stops."""
        super().shutdown()
        self._end_within(STOP_SECONDS)

    def keepalive_timeout(self) -> None:
        """The client did not answer a ping."""
        super().keepalive_timeout()
        self._end_within(LEAVE_SECONDS)

    def _fail(self, code: CloseCode, reason: str) -> None:
        if not self._failed:
            self.frames = []
            self.conn.fail(code, reason)
            self.handle_parser_exception()

    def _end_within(self, seconds: float) -> None:
        if self._last is not None:
            self._last.cancel()
        if not self.disconnected:
            self._last = self.loop.call_later(seconds, self.transport.abort)
