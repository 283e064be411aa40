"""The retry policy in force for a kind: the code's defaults under the operator's row, read again every few seconds."""

import contextlib
import time
from dataclasses import replace

from apps.core.database import LOST_CONNECTION, in_db
from apps.tasks.kinds import Kind, Policy
from apps.tasks.models import RetryPolicy

FRESH = 5.0  # seconds

_rows: dict[str, dict[str, float]] = {}
_read_at = float("-inf")


async def of(kind: Kind) -> Policy:
    """The kind's policy now; with Postgres away the one known before."""
    global _rows, _read_at
    if time.monotonic() - _read_at > FRESH:
        _read_at = time.monotonic()
        with contextlib.suppress(*LOST_CONNECTION):
            _rows = await in_db(_read)
    changes = _rows.get(kind.name)
    return replace(kind.policy, **changes) if changes else kind.policy  # type: ignore[arg-type]


def _read() -> dict[str, dict[str, float]]:
    names = ("base", "factor", "cap", "max_retries", "park_limit")
    return {
        row.kind: {name: getattr(row, name) for name in names if getattr(row, name) is not None}
        for row in RetryPolicy.objects.all()
    }
