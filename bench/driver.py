"""Run the load generator against a server, pinned beside the upstream; give back what it counted."""

import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any

from bench import process
from bench.servers import Place, Server

PLAIN = ["--connections", "64"]


class LoadError(Exception):
    """The load generator itself failed."""


def plain(place: Place, server: Server, seconds: float) -> dict[str, Any]:
    """One window of plain answers over 64 connections."""
    return load(place, server, [*PLAIN, "--seconds", str(seconds)], at_most=seconds + 60)


def streams(place: Place, server: Server, seconds: float, *, connections: int, length: float) -> dict[str, Any]:
    """One window with that many streams always open; they begin spread over `length`, one stream's time."""
    flags = ["--stream", "--connections", str(connections), "--spread", str(length)]
    return load(place, server, [*flags, "--seconds", str(seconds)], at_most=seconds + 60)


def count(place: Place, server: Server, requests: int, *, stream: bool) -> dict[str, Any]:
    """Exactly `requests` requests, however long they take (10 minutes at most)."""
    flags = [*PLAIN, "--count", str(requests), "--at-most", "600"]
    return load(place, server, flags + ["--stream"] * stream, at_most=660)


def load(place: Place, server: Server, flags: Sequence[str], *, at_most: float) -> dict[str, Any]:
    command = [str(place.python), "-m", "bench.load", "--url", server.url, *flags]
    if (root := server.root()) is not None:
        command += ["--pid", str(root)]
    with process.on_cpu(place.other_cpu):
        done = subprocess.run(
            command,
            cwd=process.REPOSITORY,
            env={**os.environ, "BENCH_KEY": server.key},
            capture_output=True,
            text=True,
            timeout=at_most,
        )
    if done.returncode:
        raise LoadError(f"load on {server.name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout))
