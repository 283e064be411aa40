"""Tiny servers that speak just enough of Redis' protocol to be away, silent, loading or cut off."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import hiredis

Answer = Callable[[list[bytes]], Awaitable[bytes | None]]


@dataclass
class Server:
    """url: where it listens. commands: what arrived. open: the connections that are open now."""

    url: str = ""
    commands: list[list[bytes]] = field(default_factory=list)
    open: set[asyncio.StreamWriter] = field(default_factory=set)
    accepted: int = 0

    def cut(self) -> None:
        """Close every connection."""
        for writer in self.open:
            writer.transport.abort()


@asynccontextmanager
async def redis_server(answer: Answer) -> AsyncIterator[Server]:
    """Serve until the block ends. answer: the bytes for a command, None to say nothing."""
    server = Server()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.accepted += 1
        server.open.add(writer)
        parser = hiredis.Reader()
        try:
            while data := await reader.read(65536):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    server.commands.append(command)
                    if (reply := await answer(command)) is not None:
                        writer.write(reply)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            server.open.discard(writer)
            writer.transport.abort()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    server.url = f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}/0"
    try:
        yield server
    finally:
        listening.close()
        server.cut()
        await asyncio.sleep(0)


async def silent(_: list[bytes]) -> bytes | None:
    """Takes commands and never answers."""
    return None


async def echo(command: list[bytes]) -> bytes | None:
    """Answers ECHO, and OK to everything else."""
    if command[0] == b"ECHO":
        return b"$%d\r\n%s\r\n" % (len(command[1]), command[1])
    return b"+OK\r\n"
