"""One small question to a service: does this HTTP path answer? Asked once, with a short patience."""

import asyncio
from contextlib import suppress


async def http_status(
    host: str, port: int, path: str, *, headers: dict[str, str] | None = None, timeout: float = 2.0
) -> int:
    """The status of GET `path`, 0 when nothing answers in `timeout` seconds."""
    lines = {"Host": f"{host}:{port}", "Connection": "close", **(headers or {})}
    head = f"GET {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    with suppress(OSError, TimeoutError, ValueError, IndexError):
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host.strip("[]"), port)
            try:
                writer.write(head.encode())
                return int((await reader.readline()).split()[1])
            finally:
                writer.close()
    return 0
