"""The chat request: every limit of the contract as a row."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from apps.completions.chat import upstream_body
from apps.completions.schemas.chat import IMAGE, ChatRequest
from apps.providers.contract import RouteConfig

HELLO = {"role": "user", "content": "hello"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"role": "tool", "content": "42", "tool_call_id": "c1"}


def valid(**fields: Any) -> bool:
    """Whether a request with these fields passes."""
    try:
        ChatRequest.model_validate({"messages": [HELLO], **fields})
    except ValidationError:
        return False
    return True


GOOD: list[dict[str, Any]] = [
    {"model": "gpt-4o"},
    {"model": "openai/gpt-4o:free@x_y-z.1"},
    {"model": "m" * 128},
    {"messages": [HELLO] * 1000},
    {"messages": [{"role": "system", "content": "x"}, {"role": "developer", "content": "x"}, HELLO]},
    {"messages": [HELLO, {"role": "assistant", "tool_calls": [CALL]}, TOOL]},
    {"messages": [{"role": "assistant", "content": None}]},
    {"messages": [{"role": "function", "name": "f", "content": "x"}]},
    {"messages": [{**HELLO, "content": "x" * 100_000}]},
    {"messages": [{**HELLO, "content": [{"type": "text", "text": "x"}]}]},
    {"messages": [{**HELLO, "content": [{"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}}]}]},
    {"messages": [{**HELLO, "name": "n" * 64}]},
    {"temperature": 0},
    {"temperature": 2},
    {"temperature": 0.5},
    {"temperature": None},
    {"top_p": 1},
    {"frequency_penalty": -2, "presence_penalty": 2},
    {"max_tokens": 1},
    {"max_tokens": 16_384},
    {"max_completion_tokens": 5},
    {"stop": "x"},
    {"stop": ["a", "b", "c", "d"]},
    {"user": "u" * 256},
    {"user": ""},
    {"n": 128},
    {"seed": -(2**63)},
    {"logit_bias": {"50256": -100}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}},
    {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "auto"},
    {"stream": True, "stream_options": {"include_usage": True}},
    {"metadata": {"a": "b"}},
    {"reasoning_effort": "high", "verbosity": "low"},
]


@pytest.mark.parametrize("fields", GOOD, ids=lambda fields: str(fields)[:60])
def test_a_request_passes_with(fields: dict[str, Any]) -> None:
    assert valid(**fields)


BAD: list[dict[str, Any]] = [
    {"model": ""},
    {"model": "a b"},
    {"model": "a\n"},
    {"model": "é"},
    {"model": "m" * 129},
    {"model": None},
    {"model": 5},
    {"messages": []},
    {"messages": [HELLO] * 1001},
    {"messages": None},
    {"messages": "hello"},
    {"messages": {"role": "user"}},
    {"messages": ["hello"]},
    {"messages": [{"role": "robot", "content": "x"}]},
    {"messages": [{"role": "user"}]},
    {"messages": [{"content": "x"}]},
    {"messages": [{**HELLO, "content": ""}]},
    {"messages": [{**HELLO, "content": " \n\t "}]},
    {"messages": [{**HELLO, "content": None}]},
    {"messages": [{**HELLO, "content": "x" * 100_001}]},
    {"messages": [{**HELLO, "content": "a\x00b"}]},
    {"messages": [{**HELLO, "content": []}]},
    {"messages": [{**HELLO, "content": [{"type": "text", "text": ""}]}]},
    {"messages": [{**HELLO, "content": [{"type": "text", "text": "a\x00"}]}]},
    {"messages": [{**HELLO, "content": [{"type": "video"}]}]},
    {"messages": [{**HELLO, "content": 5}]},
    {"messages": [{**HELLO, "name": ""}]},
    {"messages": [{**HELLO, "name": "n" * 65}]},
    {"messages": [{"role": "tool", "content": "x"}]},
    {"temperature": -0.1},
    {"temperature": 2.1},
    {"temperature": "1"},
    {"temperature": True},
    {"temperature": float("nan")},
    {"temperature": float("inf")},
    {"top_p": 1.1},
    {"top_p": -1},
    {"frequency_penalty": 2.1},
    {"presence_penalty": -2.1},
    {"max_tokens": 0},
    {"max_tokens": 16_385},
    {"max_tokens": 1.5},
    {"max_tokens": "5"},
    {"max_tokens": True},
    {"max_completion_tokens": 0},
    {"stop": []},
    {"stop": ["a"] * 5},
    {"stop": [5]},
    {"stop": ["a\x00"]},
    {"user": "u" * 257},
    {"user": "a\x00"},
    {"user": 5},
    {"n": 0},
    {"n": 129},
    {"n": True},
    {"seed": 2**63},
    {"seed": 10**400},
    {"logit_bias": {"1": 101}},
    {"stream": "yes"},
    {"stream": 1},
    {"stream_options": {"include_usage": 1}},
    {"tools": [{"type": "robot"}]},
    {"tool_choice": "perhaps"},
    {"response_format": {"type": "xml"}},
    {"reasoning_effort": "much"},
    {"metadata": {"a": 5}},
    {"top_logprobs": 21},
]


@pytest.mark.parametrize("fields", BAD, ids=lambda fields: str(fields)[:60])
def test_a_request_is_refused_with(fields: dict[str, Any]) -> None:
    assert not valid(**fields)


def test_texts_are_stripped() -> None:
    request = ChatRequest.model_validate({"messages": [{"role": "user", "content": "  hi\n"}]})
    assert request.messages[0].content == "hi"


def test_what_a_provider_adds_inside_an_object_passes_through() -> None:
    request = ChatRequest.model_validate({"messages": [{**HELLO, "cache_control": {"type": "ephemeral"}}]})
    assert upstream_body(request, RouteConfig("m", ()))["messages"][0]["cache_control"] == {"type": "ephemeral"}


def test_a_million_wrong_messages_make_one_complaint() -> None:
    with pytest.raises(ValidationError) as raised:
        ChatRequest.model_validate({"messages": [5] * 900})
    assert raised.value.error_count() == 1


def test_tools_count_as_input_too() -> None:
    plain = ChatRequest.model_validate({"messages": [HELLO]})
    tools = [{"type": "function", "function": {"name": "f", "description": "x" * 5000}}]
    assert ChatRequest.model_validate({"messages": [HELLO], "tools": tools}).characters() > plain.characters() + 5000


def test_characters_are_those_of_all_texts_and_an_image_counts_as_many() -> None:
    parts = [{"type": "text", "text": "four"}, {"type": "image_url", "image_url": {"url": "x" * 999}}]
    request = ChatRequest.model_validate({"messages": [HELLO, {"role": "user", "content": parts}]})
    assert request.characters() == 9 + IMAGE


def body(route: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """What the upstream gets."""
    request = ChatRequest.model_validate({"messages": [HELLO], **fields})
    return upstream_body(request, RouteConfig("m", (), default_params=route))


DEFAULTS = {"temperature": 0.7, "max_tokens": 1024}


def test_the_routes_defaults_fill_what_the_client_left_out() -> None:
    sent = body(DEFAULTS, temperature=0)
    assert (sent["temperature"], sent["max_tokens"]) == (0, 1024)


def test_a_default_of_max_tokens_is_never_sent_beside_max_completion_tokens() -> None:
    sent = body(DEFAULTS, max_completion_tokens=5)
    assert "max_tokens" not in sent
    assert sent["max_completion_tokens"] == 5


def test_what_neither_set_is_not_forwarded() -> None:
    assert set(body({})) == {"messages"}


def test_store_is_never_forwarded() -> None:
    assert "store" not in body({}, store=False)


def test_a_stream_always_asks_for_its_usage() -> None:
    assert body({}, stream=True)["stream_options"] == {"include_usage": True}
    assert body({}, stream=True, stream_options={"include_usage": False, "x": 1})["stream_options"] == {
        "include_usage": True,
        "x": 1,
    }


@given(
    st.dictionaries(
        st.sampled_from(sorted(ChatRequest.model_fields)),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.lists(st.text(max_size=2), max_size=3)
        | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
        max_size=6,
    )
)
def test_any_fields_pass_or_are_refused_and_nothing_else(fields: dict[str, Any]) -> None:
    valid(**fields)


BIG = "x" * 100_000


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "a", "function_call": {"name": "f", "arguments": BIG}},
        {"role": "assistant", "content": "a", "reasoning_content": BIG},
        {"role": "assistant", "refusal": BIG},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c", "type": "custom", "custom": {"name": "f", "input": BIG}}]},
        {"role": "user", "content": [{"type": "text", "text": "a", "more": BIG}]},
        {"role": "tool", "tool_call_id": "c", "content": BIG},
    ],
)  # fmt: skip
def test_every_text_of_a_message_counts(message: dict[str, object]) -> None:
    request = ChatRequest.model_validate({"messages": [message]})
    assert 100_000 <= request.characters() < 101_000


def test_a_picture_counts_as_one_however_it_is_sent_and_a_file_by_its_size() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    file = {"type": "file", "file": {"file_data": "A" * 4_000_000}}
    assert ChatRequest.model_validate({"messages": [{"role": "user", "content": [picture]}]}).characters() == 4_000
    assert ChatRequest.model_validate({"messages": [{"role": "user", "content": [file]}]}).characters() == 100_000


def test_null_is_not_set_so_that_the_routes_defaults_apply() -> None:
    request = ChatRequest.model_validate({"messages": [HELLO], "max_tokens": None, "temperature": None, "stop": None})
    body = upstream_body(request, RouteConfig("r", (), default_params={"max_tokens": 9, "temperature": 0.7}))
    assert (body["max_tokens"], body["temperature"], "stop" in body) == (9, 0.7, False)
