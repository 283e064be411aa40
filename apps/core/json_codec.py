"""JSON in and out: orjson, and the standard library for the lone surrogates that orjson refuses."""

import contextlib
import json
import math
from typing import Any

import orjson


def loads_strict(raw: bytes) -> Any:
    """A client's value. Raises ValueError for what RFC 8259 does not allow, lone surrogates and absurd depth."""
    return orjson.loads(raw)


def loads(raw: bytes) -> Any:
    """A provider's value, lone surrogates allowed. Raises ValueError for NaN, broken text and absurd depth."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(raw, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("too deep") from None


def dumps(value: Any) -> bytes:
    """UTF-8 JSON; ASCII with escapes where a string holds a lone surrogate."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return ascii_dumps(value).encode()


def ascii_dumps(value: Any) -> str:
    """JSON with every character beyond ASCII escaped, NUL and lone surrogates included: Postgres' text holds it."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)


def readable(text: str) -> str:
    """JSON text with line breaks, for people; what is no JSON as it is. Never what UTF-8 cannot hold."""
    with contextlib.suppress(ValueError, RecursionError):
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:20]} is too large")
    return number
