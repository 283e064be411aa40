"""The lines between the benchmark and a process that sends tasks: a count in, what it took out."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

Body = dict[str, Any]
PROMPT = "Summarise the following notes for somebody who has not been at the meeting. " * 11
BODY: Body = {
    "model": "bench-model",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}],
    "temperature": 0.2,
    "max_tokens": 64,
}
"""The request of every task, about 1 kB; `model` is set per round."""


def obey(send: Callable[[int, Body], None]) -> None:
    """For each line `COUNT MODEL` of stdin call `send`, and print the seconds and the CPU seconds it took."""
    _say({"ready": True})
    for line in sys.stdin:
        count, model = line.split()
        wall, cpu = time.perf_counter(), time.process_time()
        send(int(count), {**BODY, "model": model})
        _say({"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu})


async def obey_async(send: Callable[[int, Body], Awaitable[None]]) -> None:
    """`obey` for a sender that has a loop."""
    _say({"ready": True})
    while line := await asyncio.to_thread(sys.stdin.readline):
        count, model = line.split()
        wall, cpu = time.perf_counter(), time.process_time()
        await send(int(count), {**BODY, "model": model})
        _say({"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu})


def _say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)
