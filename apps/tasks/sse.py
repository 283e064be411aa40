"""Renders the events of a task as server-sent events (WHATWG HTML, 9.2); a client resumes from the last `id:`."""

from collections.abc import AsyncGenerator

from apps.completions import sse
from apps.core import json_codec
from apps.providers.bounded import Buffer
from apps.tasks.events import Event


def frames(events: Buffer[Event], *, heartbeat: float = sse.HEARTBEAT) -> AsyncGenerator[bytes, None]:
    """The bytes of the response; they end with the task."""
    return sse.frames(events, _frame, heartbeat=heartbeat)


def _frame(event: Event) -> bytes:
    body = json_codec.dumps(event.body())
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (event.id.encode(), event.type.encode(), body)
