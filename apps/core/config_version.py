"""One number that grows with every change of configuration, so that every process notices within a second.

Postgres triggers on the tables of projects, keys, limits, providers and routes raise it in the changing
transaction, whoever writes: the admin, a command, or a person in psql. Each process reads it every
REDRIVE_CONFIG_POLL seconds and asks the registered caches to forget. See docs/decisions/0003-config-version.md.
"""

import asyncio
import time
from collections.abc import Callable

import structlog
from django.conf import settings
from django.db import connection

from apps.core.database import in_db

log = structlog.get_logger(__name__)

_listeners: list[Callable[[], None]] = []
_seen: int | None = None
_checked = _stale_at = float("-inf")  # monotonic seconds


def on_change(forget: Callable[[], None]) -> None:
    """Call `forget` in the loop's thread whenever the configuration has changed; from AppConfig.ready."""
    _listeners.append(forget)


def read() -> int:
    """The version now."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT version FROM core_config_version")
        row = cursor.fetchone()
    return int(row[0]) if row else 0


async def check(*, if_older_than: float = 0.0) -> bool:
    """Look once, unless the last look is younger; True if something had changed (the listeners have been told).

    Raises where Postgres is away.
    """
    global _seen, _checked, _stale_at
    if age() < if_older_than:
        return False
    version = await in_db(read)
    changed, _seen, _checked = version != _seen, version, time.monotonic()
    _stale_at = _checked + settings.REDRIVE.stale_config
    if changed:
        for forget in _listeners:
            forget()
    return changed


def age() -> float:
    """Seconds since the version was last read with success."""
    return time.monotonic() - _checked


def is_stale() -> bool:
    """Whether cached rows are too old to be served: the version was not read for REDRIVE_STALE_CONFIG seconds."""
    return time.monotonic() > _stale_at


async def watch(every: float) -> None:
    """Look for ever, each `every` seconds. With Postgres away it goes on trying and the caches stay as they are."""
    while True:
        try:
            await check()
        except Exception as error:  # nothing may end the look-out: a revoked key would be served for ever
            log.warning("config_version_unreadable", error=type(error).__name__)
        await asyncio.sleep(every)
