"""Composes the websockets: `/v1/stream` has its consumer, any other address is refused at the handshake."""

from django.conf import settings

from apps.core import errors
from apps.core.request_context import ASGIApp, Receive, Scope, Send
from apps.streaming import handshake
from apps.streaming.consumer import StreamConsumer
from apps.streaming.sockets import OpenSockets

PATH = "/v1/stream"


def application() -> ASGIApp:
    """The ASGI application of scopes of type websocket."""
    stream: ASGIApp = StreamConsumer.as_asgi(sockets=OpenSockets(settings.REDRIVE))

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == PATH:
            await stream(scope, receive, send)
        else:
            await receive()  # websocket.connect
            await handshake.refuse(scope, send, errors.NotFound())

    return route
