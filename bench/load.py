"""Closed-loop load over raw sockets, cheap enough that the server is what gets measured.

Prints one JSON object. It warms up, opens a window, reads the CPU time of the measured process tree at both
ends itself, and counts inside the window only. A streaming warm-up lasts until every stream has had a chunk.
"""

import argparse
import asyncio
import json
import math
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop

from bench import process

EVENT = b"data: {"
KEEP = len(EVENT) - 1  # an event's start may be split between two reads
PROMPT = "Summarise the following notes for somebody who has not been at the meeting. " * 11


def request_bytes(url: str, key: str, *, stream: bool) -> bytes:
    """A chat completion of about 1 kB, headers included."""
    parts = urlsplit(url)
    body: dict[str, Any] = {
        "model": "bench-model",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}],
        "temperature": 0.2,
        "max_tokens": 64,
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    payload = json.dumps(body).encode()
    head = (
        f"POST {parts.path}/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\nAccept: */*\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


@dataclass
class Run:
    """One load: what to send, when to stop, what was counted."""

    request: bytes
    stream: bool
    count: int | None = None
    spread: float = 0.0
    open: bool = False
    stopping: bool = False
    sent: int = 0
    finished: int = 0
    chunks: int = 0
    errors: int = 0
    first_error: str = ""
    connections: int = 0
    streams_begun: int = 0
    latencies: list[float] = field(default_factory=list)
    first_chunks: list[float] = field(default_factory=list)
    early_first_chunks: list[float] = field(default_factory=list)
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    all_begun: asyncio.Event = field(default_factory=asyncio.Event)

    def stream_began(self) -> None:
        self.streams_begun += 1
        if self.streams_begun == self.connections:
            self.all_begun.set()

    def may_send(self) -> bool:
        if self.stopping or (self.count is not None and self.sent >= self.count):
            return False
        self.sent += 1
        return True

    def fail(self, why: str) -> None:
        self.errors += 1
        self.first_error = self.first_error or why[:500]
        if self.errors > 200:  # a broken server is not hammered until the end of the round
            self.stopping = True
            self.all_begun.set()


class Connection(asyncio.Protocol):
    """One keep-alive connection: sends, reads the answer to its end, sends again."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.busy = False
        self.begun = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.run.connections += 1

    def send(self) -> None:
        if not self.run.may_send():
            self.transport.close()
            return
        self.busy = True
        self.head = b""
        self.status = 0
        self.left: int | None = None
        self.tail = b""
        self.first = 0.0
        self.in_window = self.run.open
        self.began = time.perf_counter()
        self.transport.write(self.run.request)

    def data_received(self, data: bytes) -> None:
        if not self.status:
            data = self.head + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self.head = data
                return
            head, data = data[:end].lower(), data[end + 4 :]
            self.status = int(head[9:12])
            at = head.find(b"\r\ncontent-length:")
            self.left = int(head[at + 17 :].partition(b"\r\n")[0]) if at >= 0 else None
            if self.status not in {200, 202}:
                self.run.fail(f"HTTP {self.status}: {data.decode(errors='replace')}")
        if self.run.stream:
            self.count_events(data)
        if self.left is not None:
            self.left -= len(data)
            if self.left <= 0:
                self.done()
        else:
            self.tail = (self.tail + data)[-7:]
            if self.tail == b"\r\n0\r\n\r\n":
                self.done()

    def count_events(self, data: bytes) -> None:
        found = (self.tail[-KEEP:] + data).count(EVENT)
        if not found:
            return
        if not self.first:
            self.first = time.perf_counter() - self.began
            (self.run.first_chunks if self.in_window else self.run.early_first_chunks).append(self.first)
            if not self.begun:
                self.begun = True
                self.run.stream_began()
        if self.run.open:
            self.run.chunks += found

    def done(self) -> None:
        run = self.run
        self.busy = False
        run.finished += 1
        if self.status == 200 and run.stream and not self.first:
            run.fail("a stream without a chunk")
        if run.open:
            run.latencies.append(time.perf_counter() - self.began)
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        self.run.connections -= 1
        if self.busy and not self.run.stopping:
            self.run.fail(f"the server closed the connection: {exc}")
        if not self.run.connections:
            self.run.idle.set()


async def connect(run: Run, url: str, number: int) -> list[Connection]:
    """Open the connections; their first requests are spread evenly over `run.spread` seconds."""
    loop = asyncio.get_running_loop()
    parts = urlsplit(url)
    opened = []
    for _ in range(number):
        _, connection = await loop.create_connection(lambda: Connection(run), parts.hostname or "", parts.port or 80)
        opened.append(connection)
    for index, connection in enumerate(opened):
        loop.call_later(run.spread * index / number, connection.send)
    return opened


async def warm_up(run: Run, *, seconds: float, at_most: float) -> None:
    await asyncio.sleep(seconds)
    if run.stream:
        with suppress(TimeoutError):
            await asyncio.wait_for(run.all_begun.wait(), at_most - seconds)


async def window(run: Run, seconds: float, pids: list[int]) -> dict[str, float]:
    """Open the window for `seconds`; the CPU of the measured tree and of this process, and the wall time."""
    cpu, own, begin = process.cpu_seconds(pids), time.process_time(), time.perf_counter()
    run.open = True
    await asyncio.sleep(seconds)
    run.open = False
    return {
        "cpu_seconds": process.cpu_seconds(pids) - cpu,
        "load_cpu_seconds": time.process_time() - own,
        "seconds": time.perf_counter() - begin,
    }


async def perform(args: argparse.Namespace) -> dict[str, Any]:
    run = Run(
        request=request_bytes(args.url, args.key, stream=args.stream),
        stream=args.stream,
        count=args.count,
        spread=args.spread,
    )
    opened = await connect(run, args.url, args.connections)
    pids = process.tree(args.pid) if args.pid else []
    figures: dict[str, Any] = {}
    if args.count is None:
        await warm_up(run, seconds=args.warm, at_most=args.warm_at_most)
        figures = await window(run, args.seconds, pids)
        run.stopping = True
    try:
        await asyncio.wait_for(run.idle.wait(), args.drain if args.count is None else args.at_most)
    except TimeoutError:
        run.stopping = True
        for connection in opened:
            connection.transport.abort()
    enough = len(run.first_chunks) >= 20
    return figures | {
        "requests": len(run.latencies),
        "finished": run.finished,
        "chunks": run.chunks,
        "errors": run.errors,
        "first_error": run.first_error,
        "p50": percentile(run.latencies, 50),
        "p99": percentile(run.latencies, 99),
        # A saturated server may begin no stream inside the window: then those of the warm-up must do.
        "ttft_p50": percentile(run.first_chunks if enough else run.early_first_chunks, 50),
        "ttft_p99": percentile(run.first_chunks if enough else run.early_first_chunks, 99),
        "all_streams_began": not run.stream or run.all_begun.is_set(),
        "rss_bytes": process.rss_bytes(pids),
    }


def percentile(values: list[float], percent: int) -> float | None:
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--url", required=True, help="base URL, ending in /v1")
    parser.add_argument("--key", help="API key; else the environment's BENCH_KEY")
    parser.add_argument("--pid", type=int, help="root of the process tree whose CPU and RSS to read")
    parser.add_argument("--stream", action="store_true", help="SSE instead of plain answers")
    parser.add_argument("--connections", type=int, default=64, help="each has one request in flight (64)")
    parser.add_argument("--spread", type=float, default=0, help="seconds over which the first requests begin")
    parser.add_argument("--seconds", type=float, default=5, help="length of the window (5)")
    parser.add_argument("--warm", type=float, default=1, help="seconds before the window, at least (1)")
    parser.add_argument("--warm-at-most", type=float, default=20, help="when streams are slow to begin (20)")
    parser.add_argument("--drain", type=float, default=3, help="seconds given to open answers afterwards (3)")
    parser.add_argument("--count", type=int, help="send exactly so many requests instead; no window")
    parser.add_argument("--at-most", type=float, default=600, help="give up a --count after seconds (600)")
    args = parser.parse_args()
    args.key = args.key or os.environ.get("BENCH_KEY", "none")
    json.dump(uvloop.run(perform(args)), sys.stdout)
    print()


if __name__ == "__main__":
    main()
