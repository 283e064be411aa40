"""Fingerprint v1: failures with one cause get one fingerprint, whatever ids, numbers and addresses their words hold.

sha256 over kind, upstream, error code, status, the normalised message and the top three of our own frames without
line numbers. The version is part of the text: a later version never regroups old failures.
"""

import hashlib
import re
import traceback
from types import TracebackType

VERSION = 1
MAX_TRACEBACK = 32 * 1024  # characters
MESSAGE = 500
READ = 2000  # characters of a message that are looked at: the rules take time, and an exception may hold a document
FRAMES = 3

_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"https?://[^\s\"'<>)\]]+"), "<url>"),
    (re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), "<mail>"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.I), "<uuid>"),
    (re.compile(r"\b[a-z]{2,12}[-_](?=[\w-]*\d)[A-Za-z0-9_-]{8,}\b"), "<id>"),  # req_..., chatcmpl-..., org-...
    (re.compile(r"\b(?:0x)?(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{8,}\b", re.I), "<hex>"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"), "<address>"),
    (re.compile(r"(?<![\w/])(?:/[\w.@-]+){2,}/?"), "<path>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"\b\d+(?:\.\d+)?(?=\s?(?:ms|s|m|h|sec|min|(?:second|minute|hour)s?)\b)"), "<n>"),  # "in 1.2s"
    (re.compile(r"\d{4,}(?:[.,]\d+)*"), "<n>"),
    (re.compile(r"\"[^\"]{40,}\"|'[^']{40,}'|`[^`]{40,}`"), "<quote>"),
    (re.compile(r"\s+"), " "),
)


def normalise(message: str) -> str:
    """The message without what differs between two failures of one cause, at most 500 characters."""
    message = message[:READ]
    for pattern, replacement in _RULES:
        message = pattern.sub(replacement, message)
    return message.strip()[:MESSAGE]


def compute(
    *, kind: str, upstream: str, code: str, status: int | None, message: str, frames: tuple[str, ...] = ()
) -> str:
    """64 hexadecimal digits."""
    parts = (f"v{VERSION}", kind, upstream, code, str(status or ""), normalise(message), *frames[:FRAMES])
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()


def own_frames(trace: TracebackType | None) -> tuple[str, ...]:
    """`module.py:function` of our own frames, innermost first."""
    found = [
        f"{frame.f_code.co_filename.rpartition('/apps/')[2]}:{frame.f_code.co_name}"
        for frame, _ in traceback.walk_tb(trace)
        if "/apps/" in frame.f_code.co_filename and "/site-packages/" not in frame.f_code.co_filename
    ]
    return tuple(reversed(found))[:FRAMES]


def traceback_text(error: BaseException) -> str:
    """The traceback without local variables; of a long one its end."""
    text = "".join(traceback.format_exception(error))
    return text[-MAX_TRACEBACK:]
