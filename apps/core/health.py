"""Registered health checks: `/livez` says that the process turns, `/readyz` runs every check within its time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

Check = Callable[[], Awaitable[dict[str, Any]]]

TIMEOUT = 3.0  # seconds for one check
_checks: dict[str, Check] = {}


def register(name: str, check: Check) -> None:
    """Add a check under a name. It returns facts to show and raises when it fails; called from AppConfig.ready."""
    _checks[name] = check


async def run() -> tuple[bool, dict[str, dict[str, Any]]]:
    """Run all checks side by side: whether all passed, and per check `{"ok", "ms", ...facts | "error"}`."""
    reports = await asyncio.gather(*(_timed(check) for check in _checks.values()))
    return all(report["ok"] for report in reports), dict(zip(_checks, reports, strict=True))


async def _timed(check: Check) -> dict[str, Any]:
    started = time.monotonic()
    try:
        async with asyncio.timeout(TIMEOUT):
            facts = await check()
    except Exception as error:  # whatever a check raises means that it failed
        # The class only: messages of drivers hold host names and users.
        return {"ok": False, "ms": _since(started), "error": type(error).__name__}
    return {"ok": True, "ms": _since(started), **facts}


def _since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 1)
