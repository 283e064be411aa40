"""Further replies for the scripted upstream: held back, endless, redirecting."""

import asyncio
import json
import threading
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.journeys.wire import eventually
from tests.upstream import Handler, chunk, completion, stream


@dataclass
class Hold:
    """Requests wait until `release` is set; `waiting` counts those that have come."""

    release: threading.Event = field(default_factory=threading.Event)
    waiting: int = 0

    def reply(self, text: str = "held") -> Handler:
        """A whole answer after the release."""

        async def answer(_: web.Request, __: dict[str, Any]) -> web.StreamResponse:
            self.waiting += 1
            await asyncio.to_thread(self.release.wait, 20)
            return web.json_response(completion(text))

        return answer

    def until(self, refused: list[Any], count: int, *, most: int) -> None:
        """Release once `count` calls were refused, or once more than `most` wait here, which is one too many."""
        eventually(lambda: len(refused) >= count or self.waiting > most, within=10)
        self.release.set()


@dataclass
class Flood:
    """A stream without an end, as fast as it is taken. sent: bytes of text so far; gone: nobody takes it."""

    piece: int = 4096
    sent: int = 0
    gone: threading.Event = field(default_factory=threading.Event)

    async def reply(self, request: web.Request, _: dict[str, Any]) -> web.StreamResponse:
        """The handler."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        data = b"data: " + json.dumps(chunk("x" * self.piece)).encode() + b"\n\n"
        try:
            while True:
                await response.write(data)
                self.sent += self.piece
                await asyncio.sleep(0)
        finally:
            self.gone.set()


def redirect(to: str) -> Handler:
    """302 with a Location."""

    async def reply(_: web.Request, __: dict[str, Any]) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": to})

    return reply


def used(prompt: int, completed: int, text: str = "hello") -> Handler:
    """A whole answer that says how many tokens it used."""
    usage = {"prompt_tokens": prompt, "completion_tokens": completed, "total_tokens": prompt + completed}

    async def reply(_: web.Request, __: dict[str, Any]) -> web.StreamResponse:
        return web.json_response(completion(text, usage=usage))

    return reply


def answer(body: dict[str, Any], headers: dict[str, str] | None = None) -> Handler:
    """200 with any JSON object."""

    async def reply(_: web.Request, __: dict[str, Any]) -> web.StreamResponse:
        return web.json_response(body, headers=headers)

    return reply


def event(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def bare_stream(*chunks: dict[str, Any], done: bool = True) -> Handler:
    """A stream of just these objects."""
    return stream(frames=(*map(event, chunks), *((b"data: [DONE]\n\n",) if done else ())), finish=False)
