"""Start the scripted upstream and the servers under test, and give each back once it answers."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import process

PATIENCE = 180.0  # seconds: LiteLLM imports for half a minute, a first `up` makes a database


class StartError(Exception):
    """A server did not come up; the message ends with the last lines of its log."""


@dataclass
class Server:
    """One thing to put load on. `root` gives the pid of the tree that is measured (None: nothing is)."""

    name: str
    duties: str
    url: str
    key: str = "none"
    root: Callable[[], int | None] = lambda: None
    children: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    up: dict[str, Any] = field(default_factory=dict)

    def pin(self, cpu: int) -> None:
        if (root := self.root()) is not None:
            process.pin(process.tree(root), cpu)

    def stop(self) -> None:
        for child in self.children:
            process.stop(child)


@dataclass(frozen=True)
class Place:
    """Where things run: folders, the relays' and LiteLLM's python, one CPU for the server and one for the rest."""

    folder: Path
    python: Path
    litellm: Path
    server_cpu: int | None
    other_cpu: int | None

    def log(self, name: str) -> Path:
        return self.folder / "log" / f"{name}.log"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_answer(server: Server, child: "subprocess.Popen[bytes]", log: Path) -> None:
    """Ask for one chat completion until it is 200; StartError with the reason when that does not happen."""
    body = json.dumps({"model": "bench-model", "messages": [{"role": "user", "content": "Hello"}]}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {server.key}"}
    request = urllib.request.Request(f"{server.url}/chat/completions", data=body, headers=headers)
    why = "no connection"
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and child.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=10):
                return
        except urllib.error.HTTPError as error:
            why = f"HTTP {error.code}: {error.read().decode(errors='replace')[:500]}"
        except OSError as error:
            why = str(error)
        time.sleep(0.3)
    ended = f"ended with {child.poll()}" if child.poll() is not None else f"did not answer ({why})"
    raise StartError(f"{server.name} {ended}; the end of {log}:\n{process.tail(log)}")


def start_upstream(place: Place, *, delay_ms: float, chunks: int, interval_ms: float) -> Server:
    port = free_port()
    flags = ["--delay-ms", str(delay_ms), "--chunks", str(chunks), "--interval-ms", str(interval_ms)]
    command = [str(place.python), "-m", "bench.upstream", "--port", str(port), *flags]
    child = process.start(command, cpu=place.other_cpu, log=place.log("direct"))
    server = Server("direct", "no relay", f"http://127.0.0.1:{port}/v1", children=[child])
    return answering(server, child, place.log("direct"))


def start_aiohttp(place: Place, upstream: str) -> Server:
    return start_relay(place, "aiohttp", "none", "bench.relays.aiohttp_relay", upstream)


def start_fastapi(place: Place, upstream: str) -> Server:
    return start_relay(place, "fastapi", "validation", "bench.relays.fastapi_relay", upstream)


def start_relay(place: Place, name: str, duties: str, module: str, upstream: str) -> Server:
    port = free_port()
    command = [str(place.python), "-m", module, "--port", str(port), "--upstream", upstream]
    child = process.start(command, cpu=place.server_cpu, log=place.log(name))
    server = Server(name, duties, f"http://127.0.0.1:{port}/v1", root=lambda: child.pid, children=[child])
    return answering(server, child, place.log(name))


def start_litellm(place: Place, upstream: str) -> Server:
    port = free_port()
    config = Path(__file__).parent / "relays" / "litellm.yaml"
    key = "sk-bench"
    env = {
        "BENCH_UPSTREAM": upstream,
        "BENCH_KEY": key,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # nothing is fetched at start
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
    }
    command = [str(place.litellm.parent / "litellm"), "--config", str(config), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    child = process.start(command, cpu=place.server_cpu, log=place.log("litellm"), env=env)
    url = f"http://127.0.0.1:{port}/v1"
    server = Server("litellm", "key", url, key=key, root=lambda: child.pid, children=[child])
    return answering(server, child, place.log("litellm"))


def start_redrive(place: Place, upstream: str) -> Server:
    """`manage.py up` with Postgres, Valkey and web; only the web process is on the server's CPU."""
    data = place.folder / "data"
    log = place.log("redrive")
    began = time.time()
    command = [sys.executable, "manage.py", "up", "--only", "postgres,valkey,web", "--no-model"]
    command += ["--data-dir", str(data), "--port", str(free_port())]
    child = process.start(command, cpu=place.other_cpu, log=log)
    try:
        up = wait_for_up(data / "up.json", child, log, began)
        base = str(up["url"]).rstrip("/")
        manage(data, "add_provider", "bench", "--base-url", upstream, "--models", "bench-model")
        key = manage(data, "create_api_key", "bench", "--rpm", "100000000")
    except BaseException:
        process.stop(child)
        raise

    def web() -> int:
        return int(read_up(data / "up.json")["pids"]["web"])

    duties = "key, validation, limits, ledger"
    server = Server("redrive", duties, f"{base}/v1", key=key, root=web, children=[child], up=up)
    server.pin(place.server_cpu)
    return answering(server, child, log)


def answering(server: Server, child: "subprocess.Popen[bytes]", log: Path) -> Server:
    try:
        wait_for_answer(server, child, log)
    except BaseException:
        server.stop()
        raise
    return server


def read_up(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def wait_for_up(
    path: Path, child: "subprocess.Popen[bytes]", log: Path, began: float, *, needed: str = "web"
) -> dict[str, Any]:
    """The content of up.json once this start has written it with the process `needed` in it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and child.poll() is None:
        with suppress(OSError, ValueError):
            if path.stat().st_mtime >= began:
                up = read_up(path)
                if needed in up["pids"]:
                    return up
        time.sleep(0.2)
    raise StartError(f"redrive: `up` wrote no up.json; the end of {log}:\n{process.tail(log)}")


def manage(data: Path, *arguments: str) -> str:
    """Run a management command; the last line of its stdout."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=process.REPOSITORY,
        env={**os.environ, "REDRIVE_DATA_DIR": str(data)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    if done.returncode:
        raise StartError(f"manage.py {arguments[0]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return (done.stdout.strip().splitlines() or [""])[-1]


STARTERS: dict[str, Callable[[Place, str], Server]] = {
    "aiohttp": start_aiohttp,
    "fastapi": start_fastapi,
    "litellm": start_litellm,
    "redrive": start_redrive,
}
