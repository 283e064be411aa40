"""A scripted provider over real HTTP: each test tells it, per model name, how the next requests are answered.

upstream.script("m1", Status(503), OK("hello"))      # the last reply repeats
upstream.requests("m1")                              # what arrived: headers, parsed bodies
"""

import asyncio
import json
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from apps.core import open_files

Handler = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def completion(text: str, **more: Any) -> dict[str, Any]:
    """OpenAI's object around a text."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": USAGE,
        **more,
    }


def chunk(text: str | None, finish: str | None = None) -> dict[str, Any]:
    """OpenAI's chunk around a piece of text."""
    delta = {} if text is None else {"content": text}
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


def ok(text: str = "hello", **more: Any) -> Handler:
    """A whole answer, or the same as a stream where the request asks for one."""

    async def reply(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if body.get("stream"):
            return await stream(*text.split(" "))(request, body)
        return web.json_response(completion(text, **more), headers={"x-request-id": "up-1"})

    return reply


def status(code: int, body: Any = None, headers: dict[str, str] | None = None) -> Handler:
    """A refusal."""

    async def reply(_: web.Request, __: dict[str, Any]) -> web.StreamResponse:
        return web.json_response(
            body if body is not None else {"error": {"message": f"scripted {code}"}}, status=code, headers=headers
        )

    return reply


def raw(data: bytes, content_type: str = "application/json", code: int = 200) -> Handler:
    """Any bytes."""

    async def reply(_: web.Request, __: dict[str, Any]) -> web.StreamResponse:
        return web.Response(body=data, status=code, content_type=content_type)

    return reply


def hang(started: threading.Event | None = None, gone: threading.Event | None = None) -> Handler:
    """No answer; `gone` is set when the gateway lets go."""

    async def reply(_: web.Request, __: dict[str, Any]) -> web.StreamResponse:
        if started:
            started.set()
        try:
            await asyncio.sleep(120)
        finally:
            if gone:
                gone.set()
        return web.Response()

    return reply


def stream(
    *pieces: str,
    usage: dict[str, int] | None = USAGE,
    cut: bool = False,
    finish: bool = True,
    every: float = 0,
    then_hang: bool = False,
    gone: threading.Event | None = None,
    frames: tuple[bytes, ...] = (),
) -> Handler:
    """Server-sent events. cut: break the connection after the pieces; then_hang: stay silent after them;
    frames: raw bytes after the pieces."""

    async def reply(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            for piece in pieces:
                await response.write(b"data: " + json.dumps(chunk(piece)).encode() + b"\n\n")
                await asyncio.sleep(every)
            for frame in frames:
                await response.write(frame)
            if then_hang:
                await asyncio.sleep(120)
            if cut:
                assert request.transport is not None
                request.transport.abort()
                return response
            if finish:
                await response.write(b"data: " + json.dumps(chunk(None, "stop")).encode() + b"\n\n")
                if usage and (body.get("stream_options") or {}).get("include_usage"):
                    last = {**chunk(None), "choices": [], "usage": usage}
                    await response.write(b"data: " + json.dumps(last).encode() + b"\n\n")
                await response.write(b"data: [DONE]\n\n")
            return response
        except (ConnectionError, asyncio.CancelledError):
            if gone:
                gone.set()
            raise

    return reply


def vectors(size: int = 4) -> Handler:
    """One vector of floats per input."""

    async def reply(_: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        inputs = body["input"]
        many = isinstance(inputs, list) and not isinstance(inputs[0], int)
        data = [
            {"object": "embedding", "index": i, "embedding": [0.25 * (i + 1)] * size}
            for i in range(len(inputs) if many else 1)
        ]
        usage = {"prompt_tokens": 3, "total_tokens": 3}
        return web.json_response({"object": "list", "data": data, "model": body["model"], "usage": usage})

    return reply


@dataclass
class Arrived:
    """One request as it arrived."""

    headers: dict[str, str]
    body: dict[str, Any]
    path: str


@dataclass
class Upstream:
    """The server; it runs in a thread of its own until the process ends."""

    url: str = ""
    _scripts: dict[str, list[Handler]] = field(default_factory=dict)
    _arrived: dict[str, list[Arrived]] = field(default_factory=lambda: defaultdict(list))

    def script(self, model: str, *replies: Handler) -> None:
        """Answer requests for a model's name with these in turn; the last repeats."""
        self._scripts[model] = list(replies)

    def requests(self, model: str) -> list[Arrived]:
        """What arrived for a model's name so far."""
        return list(self._arrived[model])

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self._arrived[body["model"]].append(Arrived(dict(request.headers), body, request.path))
        replies = self._scripts.get(body["model"]) or [ok()]
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        return await reply(request, body)

    def start(self) -> "Upstream":
        """Listen on a free port of the loopback."""
        open_files.allow_all()  # two thousand calls at once are as many sockets here
        ready = threading.Event()

        async def serve() -> None:
            app = web.Application(client_max_size=2**26)
            app.router.add_post("/v1/{operation:.*}", self._handle)
            app.router.add_get("/v1/models", _models)
            runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
            ready.set()
            await asyncio.Event().wait()

        threading.Thread(target=lambda: asyncio.run(serve()), daemon=True, name="scripted-upstream").start()
        assert ready.wait(10)
        return self


async def _models(_: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": []})
