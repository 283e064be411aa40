"""Writes rows to a terminal or a script: tables, lines of JSON, and nothing that could steer the terminal."""

import json
from collections.abc import Sequence
from typing import Any


def shown(value: Any) -> str:
    """A value as a cell: times to the second, floats as seconds, of a client's text only what is printable."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1f} s"
    text = value.isoformat() if hasattr(value, "isoformat") else str(value)
    head, separator, _ = text.partition(".")
    is_time = separator and len(head) == 19 and head[10] == "T"
    return head.replace("T", " ") if is_time else printable(text)


def printable(text: str) -> str:
    """The text without what steers a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table with a head."""
    heads = [name.replace("_", " ").upper() for name in names]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (heads, *rows)
    ]


def line(row: dict[str, Any]) -> str:
    """A row as one line of JSON, in ASCII; times in ISO 8601."""
    return json.dumps(row, default=_plain)


def _plain(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
