"""Registered health checks: `/livez` says that the process turns, `/readyz` runs every check within its time.

A vital check that fails makes the process unavailable: load balancers then send their requests elsewhere. One that is
not vital (does a worker run, does the clock tick) makes it `degraded`: live calls are still answered here, and draining
this process would mend nothing.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

Check = Callable[[], Awaitable[dict[str, Any]]]

OK: Final = "ok"
DEGRADED: Final = "degraded"
UNAVAILABLE: Final = "unavailable"

TIMEOUT = 3.0  # seconds for one check
_checks: dict[str, tuple[Check, bool]] = {}


class Unwell(Exception):
    """A check's own words for what is wrong, safe to show, with its facts."""

    def __init__(self, words: str, **facts: Any) -> None:
        super().__init__(words)
        self.words = words
        self.facts = facts


def register(name: str, check: Check, *, vital: bool = True) -> None:
    """Add a check under a name. It returns facts to show and raises when it fails; called from AppConfig.ready."""
    _checks[name] = (check, vital)


async def run() -> tuple[str, dict[str, dict[str, Any]]]:
    """Run all checks side by side: OK, DEGRADED or UNAVAILABLE, and per check {ok, vital, ms, ...facts | error}."""
    found = await asyncio.gather(*(_timed(check, vital) for check, vital in _checks.values()))
    reports = dict(zip(_checks, found, strict=True))
    failed = [report for report in found if not report["ok"]]
    if not failed:
        return OK, reports
    return UNAVAILABLE if any(report["vital"] for report in failed) else DEGRADED, reports


async def _timed(check: Check, vital: bool) -> dict[str, Any]:
    started = time.monotonic()
    try:
        async with asyncio.timeout(TIMEOUT):
            facts = await check()
    except Unwell as unwell:
        return {"ok": False, "vital": vital, "ms": _since(started), "error": unwell.words, **unwell.facts}
    except Exception as error:  # whatever a check raises means that it failed
        # The class only: messages of drivers hold host names and users.
        return {"ok": False, "vital": vital, "ms": _since(started), "error": type(error).__name__}
    return {"ok": True, "vital": vital, "ms": _since(started), **facts}


def _since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 1)
