"""The process's one pooled HTTP client for upstreams (aiohttp: httpx costs 9 ms a call with 64 in flight)."""

import asyncio

import aiohttp
import orjson

_session: aiohttp.ClientSession | None = None
_loop: asyncio.AbstractEventLoop | None = None


def session() -> aiohttp.ClientSession:
    """The running loop's client; made at first use, closed by `close` when the process stops."""
    global _session, _loop
    loop = asyncio.get_running_loop()
    if _session is None or _session.closed or _loop is not loop:
        # Concurrency is bounded per provider (call.py), so the pool itself is not.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30, ttl_dns_cache=30)
        _session = aiohttp.ClientSession(
            connector=connector,
            json_serialize=lambda value: orjson.dumps(value).decode(),
            auto_decompress=True,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent",),
            read_bufsize=2**18,
        )
        _loop = loop
    return _session


async def close() -> None:
    """Close the client's connections."""
    global _session
    if _session is not None:
        await _session.close()
        _session = None
