"""Shows the shape of a task's texts without their words: what clients wrote is for those who may reveal it."""

import json
import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit

PLAIN = frozenset({"model", "role"})  # keys whose values are names and tell nothing of a person
_NAME = re.compile(r"[\w.:/@-]{1,128}", re.ASCII)
MOST_ITEMS, MOST_NUMBERS, LONGEST = 50, 8, 20_000


def masked(body: str) -> str:
    """Readable JSON in which every text is replaced by its length, every long row of numbers by its size."""
    try:
        shown = json.dumps(_mask(json.loads(body)), indent=2)
    except (ValueError, RecursionError):
        return f"({len(body):,} characters that are not readable JSON)"
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}\n... ({len(shown) - LONGEST:,} characters more)"


def masked_url(url: str) -> str:
    """The URL without what may be secret in it: user, password, query, fragment."""
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname or ""
    except ValueError:
        return "(not readable)"
    return urlunsplit((parts.scheme, host, parts.path, "..." if parts.query else "", ""))


def _mask(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _mask(part, name) for name, part in value.items()}
    if isinstance(value, list):
        if len(value) > MOST_NUMBERS and all(isinstance(part, int | float) for part in value):
            return f"({len(value):,} numbers)"
        rest = [f"({len(value) - MOST_ITEMS:,} more)"] if len(value) > MOST_ITEMS else []
        return [*(_mask(part) for part in value[:MOST_ITEMS]), *rest]
    if isinstance(value, str) and not (key in PLAIN and _NAME.fullmatch(value)):
        return f"({len(value):,} characters)"
    return value
