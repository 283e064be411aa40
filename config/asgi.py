"""The one dispatcher: /v1, health and metrics go to the lean handler, all else to Django's own; lifespan beside.

`uvicorn config.asgi:application` or granian with `--interface asgi`: the lifespan events start the look-out for
changed configuration and, at the end, write what still waits for the ledger.
"""

import asyncio
import os
import time
from typing import cast

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

import django

django.setup(set_prefix=False)

import structlog
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler

from apps.access import admission
from apps.completions import ledger, spending
from apps.core import config_version, metrics, request_context
from apps.core.lean_asgi import LeanASGIHandler
from apps.core.request_context import ASGIApp, Message, Receive, RequestContextMiddleware, Scope, Send
from apps.providers import http

log = structlog.get_logger("redrive.access")

LEAN = ("/v1/", "/livez", "/readyz", "/metrics")
OPERATIONS = {"/v1/chat/completions": "chat/completions", "/v1/embeddings": "embeddings"}


async def show_limits() -> None:
    """Add the x-ratelimit-* headers to replies of known callers that were not admitted: lists, refusals."""
    context = request_context.current()
    if context.caller is not None and "x-ratelimit-limit-requests" not in context.reply_headers:
        await admission.look(context.caller)


class AccessLog:
    """ASGI: one log line and the metrics of each API reply, without bodies."""

    def __init__(self, app: LeanASGIHandler) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 499  # the client left before a reply began

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = time.monotonic()
        try:
            await self.app(scope, receive, noting)
        finally:
            path: str = scope["path"]
            operation = OPERATIONS.get(path, "other")
            metrics.REQUESTS.labels(operation, str(status)).inc()
            metrics.REQUEST_SECONDS.labels(operation).observe(time.monotonic() - started)
            if path.startswith("/v1/"):
                log.info("reply", method=scope["method"], path=path[:200], status=status)


class Application:
    """Sends each connection to its side."""

    def __init__(self) -> None:
        conf = settings.REDRIVE
        lean = LeanASGIHandler(max_body=conf.max_body, before_reply=show_limits)
        self._lean = RequestContextMiddleware(AccessLog(lean), trusted_proxies=conf.trusted_proxies)
        self._stock = RequestContextMiddleware(cast(ASGIApp, ASGIHandler()), trusted_proxies=conf.trusted_proxies)
        self._watcher: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await (self._lean if scope["path"].startswith(LEAN) else self._stock)(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 4404})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._watcher = asyncio.create_task(config_version.watch(settings.REDRIVE.config_poll))
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _stop(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        await spending.finish_settling()
        await asyncio.to_thread(ledger.batch().flush, 5.0)
        await http.close()


application = Application()
