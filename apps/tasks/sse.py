"""Renders the events of a task as server-sent events (WHATWG HTML, 9.2); a client resumes from the last `id:`."""

from collections.abc import AsyncGenerator

from apps.completions.sse import HEARTBEAT, PING, failure
from apps.core import json_codec
from apps.providers.bounded import Buffer
from apps.tasks.events import Event


async def frames(events: Buffer[Event], *, heartbeat: float = HEARTBEAT) -> AsyncGenerator[bytes, None]:
    """The bytes of the response, a comment in long silence; they end with the task."""
    try:
        while True:
            try:
                event = await events.next(heartbeat)
            except TimeoutError:
                yield PING
                continue
            if event is None:
                return
            yield b"id: %s\nevent: %s\ndata: %s\n\n" % (
                event.id.encode(),
                event.type.encode(),
                json_codec.dumps(event.body()),
            )
    except Exception as error:
        yield failure(error)
    finally:
        await events.close()
