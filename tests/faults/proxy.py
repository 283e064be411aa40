"""A proxy before Postgres that can cut a connection at its COMMIT: before it arrives, or before its answer does."""

import asyncio
import re
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

COMMIT = re.compile(rb"Q\x00\x00\x00.COMMIT\x00", re.DOTALL)
Cut = Literal["", "request", "answer"]


@dataclass
class Proxy:
    """url: of the database behind it. cut: what of the next `cuts` commits after `marker` was seen is lost."""

    behind: str
    url: str = ""
    cut: Cut = ""
    marker: bytes = b""
    cuts: int = 0
    made: int = 0
    host: str = ""
    port: int = 0

    def start(self) -> "Proxy":
        """Listen; `url` then leads through here."""
        head, _, place = self.behind.rpartition("@")
        address, _, name = place.partition("/")
        self.host, _, port = address.partition(":")
        self.port = int(port)
        ready: Future[int] = Future()
        threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True, name="postgres-proxy").start()
        self.url = f"{head}@127.0.0.1:{ready.result(10)}/{name}"
        return self

    def cut_commits(self, what: Cut, *, marker: bytes, count: int = 1) -> None:
        """Break the connection at the COMMIT of the next transactions in which `marker` was said."""
        self.cut, self.marker, self.cuts = what, marker, count

    async def _serve(self, ready: "Future[int]") -> None:
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        ready.set_result(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    async def _relay(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            server, to_server = await asyncio.open_connection(self.host, self.port)
        except OSError:
            to_client.transport.abort()
            return
        connection = _Connection(self, to_client, to_server)
        await asyncio.wait(
            [asyncio.create_task(connection.up(client)), asyncio.create_task(connection.down(server))],
            return_when=asyncio.FIRST_COMPLETED,
        )
        connection.close()


@dataclass
class _Connection:
    proxy: Proxy
    to_client: asyncio.StreamWriter
    to_server: asyncio.StreamWriter
    marked: bool = False
    swallow: bool = False

    async def up(self, client: asyncio.StreamReader) -> None:
        while data := await _read(client):
            proxy = self.proxy
            self.marked = self.marked or bool(proxy.marker and proxy.marker in data)
            if COMMIT.search(data):
                if self.marked and proxy.cut and proxy.cuts:
                    proxy.cuts -= 1
                    proxy.made += 1
                    if proxy.cut == "request":
                        return
                    self.swallow = True
                self.marked = False
            self.to_server.write(data)

    async def down(self, server: asyncio.StreamReader) -> None:
        while data := await _read(server):
            if self.swallow:
                return
            self.to_client.write(data)

    def close(self) -> None:
        for writer in (self.to_client, self.to_server):
            writer.transport.abort()


async def _read(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.read(65536)
    except ConnectionError:
        return b""
