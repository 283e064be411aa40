"""Reads the tokens an upstream counted, and estimates them (one for four characters) where it did not."""

from typing import Any

from apps.providers.contract import Json, Usage


def read(usage: Any) -> Usage | None:
    """Usage from OpenAI's `usage` object; None where it is absent or not to be believed."""
    if not isinstance(usage, dict):
        return None
    inwards, outwards = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens", 0))
    if inwards is None or outwards is None:
        return None
    details = usage.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    return Usage(inwards, outwards, min(cached or 0, inwards))


def estimate(input_tokens: int, output_characters: int) -> Usage:
    """Usage of a request whose upstream gave none."""
    return Usage(input_tokens, -(-output_characters // 4), estimated=True)


def render(usage: Usage) -> Json:
    """OpenAI's `usage` object."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None
