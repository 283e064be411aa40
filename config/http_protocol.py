"""The HTTP protocol of uvicorn with bounds on what comes before a body, and with the one error body for broken HTTP.

httptools has no bound: an endless header would grow in memory and stop the loop, because each read copies it. And
uvicorn holds a reply for as long as its client takes nothing of it: for ever, once the application has ended.
Used by `uvicorn --http config.http_protocol:BoundedHTTP`.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from apps.core import error_payload, errors, json_codec
from apps.core.lean_asgi import STALL

MAX_HEAD = 64 * 1024  # bytes of a request line and its headers
MAX_FIELDS = 200
HEAD_SECONDS = 60.0  # from the connection, or a request's first byte, to the end of its head
_HEADERS = b"content-type: application/json\r\nconnection: close\r\n"


class BoundedHTTP(HttpToolsProtocol):
    """Answers 431 (RFC 6585, section 5) and closes where the head of a request is too large.

    stall: seconds after which a client that has taken nothing of what waits for it is cut off.
    """

    stall = STALL
    _unread: asyncio.TimerHandle | None = None
    _head: int | None = None  # bytes read of a head that is not complete yet
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._stop_waiting()
        self._stop_counting()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client takes less than it is sent."""
        super().pause_writing()
        self._count_unread()

    def resume_writing(self) -> None:
        """It has taken nearly all."""
        self._stop_counting()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        super().data_received(data)
        if self._head is not None:
            self._head += len(data)
            if self._head > MAX_HEAD and not self.transport.is_closing():
                self._refuse(b"431 Request Header Fields Too Large", TOO_LARGE)
            elif self._patience is None:
                self._wait_for_head()

    def on_message_begin(self) -> None:
        """The first byte of a request has come."""
        self._head = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._head = None
        self._stop_waiting()
        if len(self.headers) > MAX_FIELDS or sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD:
            self._refuse(b"431 Request Header Fields Too Large", TOO_LARGE)
            raise ValueError("head too large")
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """The answer to what is no HTTP."""
        if not self.transport.is_closing():
            self._refuse(b"400 Bad Request", "This is not valid HTTP.")

    def _wait_for_head(self) -> None:
        self._patience = self.loop.call_later(HEAD_SECONDS, self._hang_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _count_unread(self) -> None:
        size = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(self.stall, self._look_at_unread, size)

    def _look_at_unread(self, before: int) -> None:
        # Nothing is added while writing is paused.
        if self.transport.get_write_buffer_size() < before:
            self._count_unread()
        else:
            self.transport.abort()

    def _stop_counting(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _hang_up(self) -> None:
        self._patience = None
        self.transport.close()

    def _refuse(self, status: bytes, message: str) -> None:
        self._head = None
        body = json_codec.dumps(error_payload.payload(errors.InvalidRequest(message), ""))
        length = b"content-length: %d\r\n\r\n" % len(body)
        self.transport.write(b"HTTP/1.1 " + status + b"\r\n" + _HEADERS + length + body)
        self.transport.close()


TOO_LARGE = f"The headers may have {MAX_HEAD // 1024} KiB and {MAX_FIELDS} fields."
