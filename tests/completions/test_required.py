"""The keys that OpenAI's schema requires, whatever an upstream left out."""

import re
from typing import Any

import pytest

from apps.completions.required import complete_piece, complete_whole
from apps.providers.contract import Usage
from tests.upstream import completion


def whole(body: dict[str, Any], used: Usage | None = None) -> dict[str, Any]:
    """The body, completed."""
    complete_whole(body, "public", used or Usage(3, 5))
    return body


@pytest.mark.parametrize("message", [{}, {"role": None, "content": None}, {"content": "x"}])
def test_a_bare_answer_gets_every_key(message: dict[str, Any]) -> None:
    body = whole({"choices": [{"message": dict(message)}]})
    assert set(body) >= {"id", "object", "created", "model", "choices", "usage"}
    assert re.fullmatch(r"chatcmpl-[A-Za-z0-9]+", body["id"])
    assert (body["object"], body["model"]) == ("chat.completion", "public")
    choice = body["choices"][0]
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)
    assert set(choice["message"]) >= {"role", "content", "refusal"}
    assert choice["message"]["role"] == "assistant"


def test_what_is_there_stays() -> None:
    body = whole(completion("hello", service_tier="flex", created=77))
    assert (body["created"], body["service_tier"]) == (77, "flex")
    assert body["choices"][0]["message"]["content"] == "hello"


def test_an_answer_with_tool_calls_finishes_because_of_them() -> None:
    call = {"function": {"name": "f", "arguments": "{}"}}
    body = whole({"choices": [{"message": {"tool_calls": [call]}, "finish_reason": None}]})
    choice = body["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["type"] == "function"
    assert choice["message"]["tool_calls"][0]["id"].startswith("call_")


def test_choices_are_numbered_in_order() -> None:
    body = whole({"choices": [{"message": {}}, {"message": {}, "index": None}, {"message": {}, "index": 7}]})
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 7]


def test_details_of_usage_stay_unless_the_numbers_are_our_estimate() -> None:
    reported = {"prompt_tokens": 3, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 1}}
    told = whole({"choices": [], "usage": dict(reported)})["usage"]
    assert told == {**reported, "total_tokens": 8}
    guessed = whole({"choices": [], "usage": {"prompt_tokens": -1}}, Usage(3, 5, estimated=True))["usage"]
    assert guessed == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}


@pytest.mark.parametrize("odd", [5, "x", [None], ["x"], {"a": 1}, []])
def test_odd_tool_calls_break_nothing(odd: Any) -> None:
    whole({"choices": [{"message": {"tool_calls": odd}}]})
    complete_piece({"delta": {"tool_calls": odd}}, 0)


def test_a_piece_gets_its_index_and_its_finish_reason() -> None:
    choice: dict[str, Any] = {"delta": {"tool_calls": [{"function": {}}, {"index": 4}]}}
    complete_piece(choice, 2)
    assert (choice["index"], choice["finish_reason"]) == (2, None)
    assert [call["index"] for call in choice["delta"]["tool_calls"]] == [0, 4]
