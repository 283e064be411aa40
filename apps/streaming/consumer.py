"""The websocket door, the project's only consumer: takes the server's events to a session, and back. Thin."""

from channels.consumer import AsyncConsumer, get_handler_name
from channels.exceptions import StopConsumer

from apps.core import errors
from apps.core.request_context import Message, Receive, Scope, Send
from apps.streaming import handshake
from apps.streaming.session import Session
from apps.streaming.sockets import OpenSockets


class StreamConsumer(AsyncConsumer):
    """`/v1/stream`."""

    def __init__(self, *, sockets: OpenSockets) -> None:
        self._sockets = sockets
        self._session: Session | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one socket; whatever ends it, its streams end with it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self._session is not None:
                await self._session.end(1012)  # the server stops

    async def dispatch(self, message: Message) -> None:
        """Channels' own closes stale database connections in a thread before each message; in_db does that here."""
        await getattr(self, get_handler_name(message))(message)

    async def websocket_connect(self, _: Message) -> None:
        """The handshake."""
        try:
            asked = handshake.read(self.scope, self._sockets.conf.allowed_origins)
            if asked.authorization is None:  # who brings a key does not wait behind strangers
                self._sockets.refuse_if_crowded()
        except errors.RedriveError as error:
            await handshake.refuse(self.scope, self.send, error)
            return
        self._session = session = Session(
            self._sockets, send=self._send_text, close=self._close, end_user=asked.end_user
        )
        await self.send({"type": "websocket.accept", "subprotocol": asked.subprotocol})
        if asked.authorization is not None:
            await session.authenticate(asked.authorization)

    async def websocket_receive(self, message: Message) -> None:
        """A frame."""
        if self._session is not None:
            await self._session.take(message.get("text"))

    async def websocket_disconnect(self, message: Message) -> None:
        """The end, whoever wished it."""
        if self._session is not None:
            await self._session.end(message.get("code", 1005))
        raise StopConsumer

    async def _send_text(self, text: str) -> None:
        await self.send({"type": "websocket.send", "text": text})

    async def _close(self, code: int, reason: str) -> None:
        await self.send({"type": "websocket.close", "code": code, "reason": reason})
