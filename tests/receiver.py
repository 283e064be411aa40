"""A receiver of webhooks over real HTTP: each test tells it, per path, how the next requests are answered.

It listens on 127.0.0.2, which tests allow (REDRIVE_OUTBOUND_ALLOW), so that 127.0.0.1 stays forbidden.
"""

import contextlib
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

HOST = "127.0.0.2"
Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass(frozen=True)
class Request:
    """What arrived. headers: names in lower case."""

    headers: Mapping[str, str]
    body: bytes


def says(status: int, body: bytes = b"", **headers: str) -> Answer:
    """A plain answer: `says(302, location="http://...")`."""

    def answer(to: BaseHTTPRequestHandler) -> None:
        to.send_response(status)
        for name, value in headers.items():
            to.send_header(name, value)
        to.send_header("Content-Length", str(len(body)))
        to.end_headers()
        to.wfile.write(body)

    return answer


def sends(data: bytes) -> Answer:
    """Any bytes in place of HTTP, then the end."""

    def answer(to: BaseHTTPRequestHandler) -> None:
        to.wfile.write(data)

    return answer


def waits(until: threading.Event) -> Answer:
    """No answer before the event."""

    def answer(to: BaseHTTPRequestHandler) -> None:
        until.wait(30)
        says(200)(to)

    return answer


def never_ends(piece: bytes, *, every: float = 0.0) -> Answer:
    """A 200 whose body goes on until the caller leaves; `sent` of the answer counts its bytes."""

    def answer(to: BaseHTTPRequestHandler) -> None:
        to.send_response(200)
        to.end_headers()
        pause = threading.Event()
        with contextlib.suppress(OSError):
            while True:
                to.wfile.write(piece)
                answer.sent += len(piece)  # type: ignore[attr-defined]
                if every:
                    pause.wait(every)

    answer.sent = 0  # type: ignore[attr-defined]
    return answer


class Receiver:
    """One server for many tests; each makes up paths of its own."""

    def __init__(self, host: str = HOST, port: int = 0) -> None:
        self._scripts: dict[str, list[Answer]] = {}
        self._arrived: dict[str, list[Request]] = defaultdict(list)
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver._arrived[self.path].append(Request(headers, self.rfile.read(length)))
                script = receiver._scripts.get(self.path, [says(204)])
                answer = script.pop(0) if len(script) > 1 else script[0]
                with contextlib.suppress(OSError):
                    answer(self)
                self.close_connection = True

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.host, self.port = host, self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True).start()

    def url(self, *script: Answer) -> str:
        """An address of its own, answered as told; the last answer repeats. Without any: 204."""
        path = f"/{uuid4().hex}"
        if script:
            self._scripts[path] = list(script)
        return f"http://{self.host}:{self.port}{path}"

    def arrived(self, url: str) -> list[Request]:
        """What came to an address."""
        return self._arrived["/" + url.partition("://")[2].partition("/")[2]]

    def stop(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()


def closed_port(host: str = HOST) -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
