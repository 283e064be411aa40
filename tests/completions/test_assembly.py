"""Chunks become the completion that the upstream would have sent whole."""

from typing import Any

from apps.completions.assembly import Assembly

HEAD = {"id": "chatcmpl-1", "created": 1, "model": "m", "object": "chat.completion.chunk"}


def whole(*pieces: dict[str, Any]) -> dict[str, Any]:
    """The completion of chunks with one choice each."""
    assembly = Assembly()
    for piece in pieces:
        assembly.add({**HEAD, "choices": [{"index": 0, "finish_reason": None, **piece}]})
    assembly.add({**HEAD, "choices": [], "usage": {"total_tokens": 3}, "cost_usd": 0.5})
    return assembly.completion()


def test_the_texts_are_put_together() -> None:
    found = whole(
        {"delta": {"role": "assistant", "content": ""}},
        {"delta": {"content": "he"}},
        {"delta": {"content": "llo"}},
        {"delta": {}, "finish_reason": "stop"},
    )
    assert found == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"total_tokens": 3},
        "cost_usd": 0.5,
    }


def test_tool_calls_are_put_together_by_their_place() -> None:
    found = whole(
        {"delta": {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]}},
        {"delta": {"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}]}},
        {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"x":'}}]}},
        {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}, "finish_reason": "tool_calls"},
    )
    message = found["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"type": "function", "id": "a", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"type": "function", "id": "b", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_choices_stand_in_their_order_whichever_comes_first() -> None:
    assembly = Assembly()
    for index, text in ((1, "b"), (0, "a"), (1, "B")):
        assembly.add({**HEAD, "choices": [{"index": index, "delta": {"content": text}}]})
    assert [choice["message"]["content"] for choice in assembly.completion()["choices"]] == ["a", "bB"]
    assert (assembly.text(1), assembly.text(7)) == ("bB", None)


def test_logprobs_are_put_together() -> None:
    found = whole(
        {"delta": {"content": "a"}, "logprobs": {"content": [{"token": "a"}]}},
        {"delta": {"content": "b"}, "logprobs": {"content": [{"token": "b"}]}},
    )
    assert found["choices"][0]["logprobs"]["content"] == [{"token": "a"}, {"token": "b"}]


def test_what_an_upstream_sends_amiss_is_left_out() -> None:
    found = whole({"delta": {"content": 5, "tool_calls": "x", "function_call": []}, "logprobs": 3})
    assert found["choices"][0]["message"] == {"role": "assistant", "content": None, "refusal": None}
