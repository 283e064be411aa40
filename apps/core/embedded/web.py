"""The web server: one uvicorn process, which takes its leave gracefully: the ledger is written before it ends."""

import sys

from apps.core.embedded.probes import http_status
from apps.core.embedded.service import Launch, Run, Service

NAME = "web"
APPLICATION = "config.asgi:application"
STOP_SECONDS = 10  # for running requests to end
OPTIONS = (
    *("--loop", "uvloop", "--http", "config.http_protocol:BoundedHTTP", "--lifespan", "on", "--log-level", "warning"),
    *("--no-access-log", "--no-server-header", "--no-proxy-headers", "--backlog", "2048"),
    *("--ws", "config.websocket_protocol:BoundedWebSocket", "--ws-max-size", str(1024 * 1024)),
    # Chunks are small: compressing each would cost more than it saves.
    *("--ws-per-message-deflate", "false", "--ws-ping-interval", "20", "--ws-ping-timeout", "20"),
    *("--timeout-graceful-shutdown", str(STOP_SECONDS), "--timeout-keep-alive", "75"),
)


async def launch(run: Run) -> Launch:
    """Says how to start the web server."""
    address = ("--host", run.host, "--port", str(run.ports[NAME]))
    return Launch((sys.executable, "-m", "uvicorn", APPLICATION, *address, *OPTIONS), run.environment())


async def is_ready(run: Run) -> bool:
    """Whether the application says that it can serve."""
    return await http_status(run.web_host, run.ports[NAME], "/readyz") == 200


SERVICE = Service(
    name=NAME,
    launch=launch,
    is_ready=is_ready,
    after=("postgres", "valkey", "prepare"),
    stop_seconds=STOP_SECONDS + 5,
)
