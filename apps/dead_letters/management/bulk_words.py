"""Says what a bulk operation is about and how far it is: as plain values, and in lines for a terminal."""

from typing import Any

from apps.core.terminal import printable
from apps.dead_letters import bulk_states
from apps.dead_letters.bulk import report
from apps.dead_letters.management.naming import short
from apps.dead_letters.models import BulkOperation
from apps.dead_letters.spans import span

SHOWN = 5  # rows of each part of the breakdown
COUNTS = ("total", "pending", "released", "succeeded", "failed", "cancelled", "skipped", "in_flight")
PACE = ("rate", "max_in_flight", "canary", "stop_percent")
TIMES = ("created_at", "started_at", "finished_at")
WHAT = {"redrive": "redriven", "discard": "discarded", "restore": "restored"}


def facts(operation: BulkOperation) -> dict[str, Any]:
    """Plain values; money in US dollars."""
    found = report.of(operation)
    return {
        "id": operation.pk.hex,
        "action": operation.action,
        "state": operation.state,
        "title": operation.title,
        "groups": operation.groups,
        "query": operation.query,
        "source": operation.source.hex if operation.source else None,
        "reason": operation.reason,
        "code": operation.discard_code,
        **{name: getattr(operation, name) for name in (*COUNTS, *PACE, *TIMES)},
        "created_by": operation.created_by,
        "started_by": operation.started_by,
        "stop_reason": operation.stop_reason,
        "seconds_left": found.seconds_left,
        "cost_usd": found.cost_usd,
        "breakdown": operation.breakdown,
        "skips": [list(row) for row in found.skips],
        "failed_again": [list(row) for row in found.failed_again],
    }


def about(operation: BulkOperation, *, rate: float | None = None) -> list[str]:
    """What a counted operation will do: how many, which, what is skipped, how long it takes, what it may cost."""
    found = report.of(operation)
    lines = [f"{operation.title}: {_letters(operation.pending)} to be {WHAT[operation.action]}"]
    for name in ("group", "kind", "model", "key", "age"):
        rows = operation.breakdown.get(name, [])
        if rows:
            shown = [f"{_named(name, row)} {row[-1]:,}" for row in rows[:SHOWN]]
            lines.append(f"  by {name}: {', '.join(shown)}{_more(len(rows) - SHOWN)}")
    lines += [f"  skipped: {count:,}, {cause}" for cause, count in found.skips]
    if operation.pending:
        pace = rate or operation.rate
        lines.append(f"  takes {span(operation.pending / pace)} at {pace:g} a second")
    if found.cost_usd is not None:
        sample = " (from a sample of the payloads)" if operation.breakdown.get("sampled") else ""
        lines.append(f"  costs about ${found.cost_usd:,.4f}{sample}")
    return [printable(line) for line in lines]


def progress(operation: BulkOperation) -> str:
    """How far it is, in one line."""
    found = report.of(operation)
    decided = operation.total - operation.skipped
    parts = [f"{operation.released:,} of {decided:,} {WHAT[operation.action]}"]
    if operation.action == BulkOperation.Action.REDRIVE:
        parts += [f"{operation.succeeded:,} succeeded", f"{operation.failed:,} failed again"]
        if operation.cancelled:
            parts.append(f"{operation.cancelled:,} cancelled")
        parts.append(f"{operation.in_flight:,} in flight")
    if operation.skipped:
        parts.append(f"{operation.skipped:,} skipped")
    if operation.state in bulk_states.RELEASING and found.seconds_left:
        parts.append(f"at least {span(found.seconds_left)} left")
    return f"{operation.state}: {', '.join(parts)}"


def outcome(operation: BulkOperation) -> list[str]:
    """What it has come to: why it stopped, what was skipped, into which groups redriven tasks have died again."""
    found = report.of(operation)
    lines = [operation.stop_reason] if operation.stop_reason else []
    lines += [f"skipped: {count:,}, {cause}" for cause, count in found.skips]
    lines += [f"failed again: {count:,} in {short(group)} {title}" for group, title, count in found.failed_again]
    return [printable(line) for line in lines]


def _letters(count: int) -> str:
    return "1 letter" if count == 1 else f"{count:,} letters"


def _named(name: str, row: list[Any]) -> str:
    return f"{short(row[0])} ({row[1]})" if name == "group" else str(row[0])


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""
