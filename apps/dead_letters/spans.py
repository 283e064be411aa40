"""Says in words how long something takes, and how long ago it was."""

from datetime import datetime, timedelta

from django.utils import timezone

_SIZES = ((86_400, "day", "days"), (3600, "h", "h"), (60, "min", "min"))


def span(length: timedelta | float) -> str:
    """`45 s`, `12 min`, `3 h`, `2 days`: one unit, rounded down, of which there are at least two."""
    seconds = max(length.total_seconds() if isinstance(length, timedelta) else length, 0.0)
    for size, one, many in _SIZES:
        if seconds >= 2 * size:
            count = int(seconds // size)
            return f"{count} {one if count == 1 else many}"
    return f"{seconds:.0f} s" if seconds >= 1 else "less than a second"


def ago(moment: datetime) -> str:
    """`3 min ago`, by this process's clock."""
    since = timezone.now() - moment
    return f"{span(since)} ago" if since.total_seconds() >= 1 else "just now"
