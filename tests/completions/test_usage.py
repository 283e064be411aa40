"""Tokens as upstreams count them, and our estimate where they do not."""

from typing import Any

import pytest

from apps.completions import usage
from apps.providers.contract import Usage


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 5}, Usage(3, 5)),
        ({"prompt_tokens": 3}, Usage(3, 0)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(0, 0)),
        ({"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}}, Usage(9, 1, 4)),
        ({"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 99}}, Usage(9, 1, 9)),
        ({"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": None}, Usage(9, 1)),
        ({"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": "x"}}, Usage(9, 1)),
    ],
)
def test_usage_is_read(reported: Any, expected: Usage) -> None:
    assert usage.read(reported) == expected


@pytest.mark.parametrize(
    "reported",
    [
        None,
        {},
        5,
        [],
        "x",
        {"prompt_tokens": None},
        {"prompt_tokens": "3", "completion_tokens": 5},
        {"prompt_tokens": 3, "completion_tokens": -1},
        {"prompt_tokens": True, "completion_tokens": 1},
        {"prompt_tokens": 2**31, "completion_tokens": 1},
        {"prompt_tokens": 1.5, "completion_tokens": 1},
        {"prompt_tokens": 3, "completion_tokens": None},
    ],
)
def test_what_cannot_be_believed_is_none(reported: Any) -> None:
    assert usage.read(reported) is None


@pytest.mark.parametrize(("characters", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (400, 100)])
def test_an_estimate_is_a_token_for_four_characters_rounded_up(characters: int, tokens: int) -> None:
    assert usage.estimate(7, characters) == Usage(7, tokens, estimated=True)


def test_usage_is_shown_in_openais_words() -> None:
    assert usage.render(Usage(3, 5)) == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
