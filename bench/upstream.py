"""A scripted OpenAI-compatible upstream: real HTTP over loopback, for a few microseconds per answer.

`python -m bench.upstream --port 9000 [--delay-ms 0] [--chunks 50] [--interval-ms 20]` answers POST
/v1/chat/completions (about 1 kB of JSON after the delay; with `"stream": true` that many chunks, the first
after the delay, then a usage chunk if asked for, then [DONE]) and POST /v1/embeddings (8 numbers per input).
A model called `NAME@MS` sets the delay of one request.
"""

import argparse
import asyncio
import json
from dataclasses import dataclass
from typing import Any, cast

import uvloop

USAGE = {"prompt_tokens": 230, "completion_tokens": 50, "total_tokens": 280}
TEXT = "The quick brown fox jumps over the lazy dog. " * 16


@dataclass(frozen=True)
class Script:
    """What every answer is made of, rendered once."""

    delay: float
    chunks: int
    interval: float
    answer: bytes
    first_chunk: bytes
    chunk: bytes
    usage_chunk: bytes
    last_chunk: bytes


def http(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def frame(payload: bytes) -> bytes:
    """One SSE event as one HTTP chunk."""
    event = b"data: " + payload + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def render(*, delay_ms: float, chunks: int, interval_ms: float) -> Script:
    base: dict[str, Any] = {"id": "chatcmpl-bench", "created": 1750000000, "model": "bench-model"}
    message = {"role": "assistant", "content": TEXT, "refusal": None}
    answer = base | {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": USAGE,
    }

    def chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
        choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
        return frame(json.dumps(base | {"object": "chat.completion.chunk", "choices": choices}).encode())

    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    usage = base | {"object": "chat.completion.chunk", "choices": [], "usage": USAGE}
    return Script(
        delay=delay_ms / 1000,
        chunks=chunks,
        interval=interval_ms / 1000,
        answer=http("200 OK", json.dumps(answer).encode()),
        first_chunk=head + chunk({"role": "assistant", "content": "The"}),
        chunk=chunk({"content": " quick"}),
        usage_chunk=frame(json.dumps(usage).encode()),
        last_chunk=frame(b"[DONE]") + b"0\r\n\r\n",
    )


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.loop = asyncio.get_running_loop()
        self.buffer = b""
        self.timer: asyncio.TimerHandle | None = None
        self.left = 0
        self.usage_wanted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        self.buffer = data = self.buffer + data if self.buffer else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = data[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].partition(b"\r\n")[0]) if at >= 0 else 0
        if len(data) < end + 4 + length:
            return
        self.buffer = data[end + 4 + length :]
        self.answer(head.split(b" ", 2)[1], data[end + 4 : end + 4 + length])

    def answer(self, path: bytes, body: bytes) -> None:
        if path.endswith(b"/chat/completions"):
            request = json.loads(body)
            delay = self.script.delay
            model = str(request["model"])
            if "@" in model:
                delay = float(model.rpartition("@")[2]) / 1000
            self.usage_wanted = bool((request.get("stream_options") or {}).get("include_usage"))
            begin = self.begin_stream if request.get("stream") else self.whole
            if delay:
                self.timer = self.loop.call_later(delay, begin)
            else:
                begin()
        elif path.endswith(b"/embeddings"):
            self.transport.write(embeddings(json.loads(body)))
        else:
            self.transport.write(http("404 Not Found", b'{"error":{"message":"no such path"}}'))

    def whole(self) -> None:
        self.transport.write(self.script.answer)

    def begin_stream(self) -> None:
        self.left = self.script.chunks - 1
        self.transport.write(self.script.first_chunk)
        self.timer = self.loop.call_later(self.script.interval, self.next_chunk)

    def next_chunk(self) -> None:
        if self.left > 0:
            self.left -= 1
            self.transport.write(self.script.chunk)
            self.timer = self.loop.call_later(self.script.interval, self.next_chunk)
        else:
            self.timer = None
            usage = self.script.usage_chunk if self.usage_wanted else b""
            self.transport.write(usage + self.script.last_chunk)


def embeddings(request: dict[str, Any]) -> bytes:
    inputs = request.get("input", "")
    count = len(inputs) if isinstance(inputs, list) else 1
    data = [{"object": "embedding", "index": i, "embedding": [0.125] * 8} for i in range(count)]
    usage = {"prompt_tokens": 8 * count, "total_tokens": 8 * count}
    body = {"object": "list", "data": data, "model": request.get("model"), "usage": usage}
    return http("200 OK", json.dumps(body).encode())


async def serve(port: int, script: Script) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Connection(script), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--delay-ms", type=float, default=0, help="before the answer or the first chunk (0)")
    parser.add_argument("--chunks", type=int, default=50, help="content chunks per stream (50)")
    parser.add_argument("--interval-ms", type=float, default=20, help="between two chunks (20)")
    args = parser.parse_args()
    script = render(delay_ms=args.delay_ms, chunks=args.chunks, interval_ms=args.interval_ms)
    uvloop.run(serve(args.port, script))


if __name__ == "__main__":
    main()
