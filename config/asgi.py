"""The one dispatcher: /v1, health and metrics go to the lean handler, all else to Django's; websockets, lifespan.

`uvicorn config.asgi:application --lifespan on`: the lifespan events start the look-out for changed configuration
and, at the end, write what still waits for the ledger.
"""

import asyncio
import os
import re
from typing import cast

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

import django

django.setup(set_prefix=False)

import structlog
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler

from apps.access import admission, replays
from apps.access.way_in import identify
from apps.completions import spending
from apps.core import config_version, garbage, metrics, open_files, request_context
from apps.core.lean_asgi import LeanASGIHandler
from apps.core.request_context import ASGIApp, Receive, RequestContext, RequestContextMiddleware, Scope, Send
from config import (
    urls,  # noqa: F401  (all views are loaded before the first request)
    websockets,
)

log = structlog.get_logger("redrive.access")

LEAN = ("/v1/", "/livez", "/readyz", "/metrics")
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"?')  # one that does not end goes to the end: looked at once
_ASYNC = re.compile(rb"(?:^|,)[ \t]*respond-async[ \t]*(?:[=;,]|$)", re.IGNORECASE)
OPERATIONS = {"/v1/chat/completions": "chat/completions", "/v1/embeddings": "embeddings"}


async def show_limits() -> None:
    """Add the x-ratelimit-* headers to replies of known callers that were not admitted: lists, refusals."""
    context = request_context.current()
    if context.caller is not None and "x-ratelimit-limit-requests" not in context.reply_headers:
        await admission.look(context.caller)


async def know_caller(scope: Scope) -> None:
    """Refuse the large bodies of strangers before they fill memory."""
    found = [value for name, value in scope["headers"] if name == b"authorization"]
    await identify(found[0].decode("latin-1") if found else "")


def note_reply(scope: Scope, context: RequestContext) -> None:
    """One log line and the metrics of an API reply, without bodies."""
    path: str = scope["path"]
    replies, seconds = metrics.of_reply(OPERATIONS.get(path, "other"), context.status)
    replies.inc()
    seconds.observe(context.elapsed_ms() / 1000)
    if path.startswith("/v1/"):
        log.info("reply", method=scope["method"], path=path[:200], status=context.status)


def _prefers_async(scope: Scope) -> bool:
    """RFC 7240, section 4.1: the client would rather not wait."""
    return any(name == b"prefer" and _ASYNC.search(_QUOTED.sub(b"", value)) for name, value in scope["headers"])


class Application:
    """Sends each connection to its side."""

    def __init__(self) -> None:
        conf = settings.REDRIVE
        lean = LeanASGIHandler(max_body=conf.max_body, before_reply=show_limits, before_body=know_caller)
        self._lean = RequestContextMiddleware(lean, trusted_proxies=conf.trusted_proxies, on_end=note_reply)
        self._stock = RequestContextMiddleware(cast(ASGIApp, ASGIHandler()), trusted_proxies=conf.trusted_proxies)
        self._sockets = RequestContextMiddleware(websockets.application(), trusted_proxies=conf.trusted_proxies)
        self._watcher: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if scope["path"] in OPERATIONS and _prefers_async(scope):
                scope = {**scope, "path": scope["path"].replace("/v1/", "/v1/tasks/", 1)}
            await (self._lean if scope["path"].startswith(LEAN) else self._stock)(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await self._sockets(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                if missing := settings.REDRIVE.missing():
                    await send({"type": "lifespan.startup.failed", "message": f"set {', '.join(missing)}"})
                    return
                garbage.settle()
                open_files.allow_all()
                self._watcher = asyncio.create_task(config_version.watch(settings.REDRIVE.config_poll))
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _stop(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        await spending.shut_down()
        await asyncio.to_thread(replays.settlements().flush, 5.0)


application = Application()
