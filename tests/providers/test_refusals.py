"""What refusing upstreams say, and what of it a client may see."""

import time
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.errors import ContentFiltered, ContextLengthExceeded, RedriveError
from apps.providers.adapters.refusals import refusal, retry_after, safe
from apps.providers.errors import (
    UpstreamBroken,
    UpstreamCredentials,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamTimeout,
)

OPENAI_CONTEXT = {
    "error": {
        "message": "This model's maximum context length is 8192 tokens. However, your messages have 9001 tokens.",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }
}
VLLM_CONTEXT = {
    "object": "error",
    "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
    "type": "BadRequestError",
    "param": None,
    "code": 400,
}
LLAMA_CPP_CONTEXT = {
    "error": {
        "code": 400,
        "message": "the request exceeds the available context size, try increasing it",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 5001,
        "n_ctx": 4096,
    }
}
AZURE_FILTER = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure's content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation"},
    }
}
ANTHROPIC = {"type": "error", "error": {"type": "invalid_request_error", "message": "messages: at least one"}}
ANTHROPIC_OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, OPENAI_CONTEXT, ContextLengthExceeded),
        (400, {"error": VLLM_CONTEXT}, ContextLengthExceeded),
        (400, VLLM_CONTEXT, ContextLengthExceeded),
        (400, LLAMA_CPP_CONTEXT, ContextLengthExceeded),
        (500, LLAMA_CPP_CONTEXT, ContextLengthExceeded),
        (400, AZURE_FILTER, ContentFiltered),
        (400, {"error": {"code": "content_policy_violation", "message": "no"}}, ContentFiltered),
        (400, ANTHROPIC, UpstreamRefused),
        (
            404,
            {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist"}},
            UpstreamRefused,
        ),
        (422, {"detail": [{"loc": ["body"], "msg": "field required"}]}, UpstreamRefused),
        (413, None, UpstreamRefused),
        (409, "text", UpstreamRefused),
        (401, {"error": {"code": "invalid_api_key", "message": "Incorrect API key: sk-abc"}}, UpstreamCredentials),
        (402, None, UpstreamCredentials),
        (403, {"error": "forbidden"}, UpstreamCredentials),
        (429, {"error": {"code": "rate_limit_exceeded"}}, UpstreamRateLimited),
        (408, None, UpstreamTimeout),
        (504, None, UpstreamTimeout),
        (500, None, UpstreamBroken),
        (502, b"x", UpstreamBroken),
        (503, {"error": {"message": "Loading model", "type": "unavailable_error"}}, UpstreamBroken),
        (529, ANTHROPIC_OVERLOADED, UpstreamBroken),
        (302, None, UpstreamBroken),
        (204, None, UpstreamBroken),
        (418, None, UpstreamBroken),
    ],
)
def test_a_refusal_becomes(status: int, body: Any, expected: type[RedriveError]) -> None:
    error = refusal(status, body, {})
    assert type(error) is expected
    assert error.upstream_status == status


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
def test_a_refused_request_keeps_its_status_and_is_a_model_error(status: int) -> None:
    error = refusal(status, {"error": {"message": "no such tool", "param": "tools[0]", "code": "x"}}, {})
    assert (error.status, error.code, error.message) == (status, "model_error", "no such tool")
    assert (error.param, error.details, error.retryable) == ("tools[0]", {"upstream_code": "x"}, False)


@pytest.mark.parametrize(
    ("body", "used", "most"),
    [(OPENAI_CONTEXT, 9001, 8192), ({"error": VLLM_CONTEXT}, 5000, 4096), (LLAMA_CPP_CONTEXT, 5001, 4096)],
)
def test_a_context_error_says_how_long_and_how_much_fits(body: Any, used: int, most: int) -> None:
    assert refusal(400, body, {}).details == {"tokens_used": used, "max_tokens": most}


def test_a_filtered_request_says_why() -> None:
    assert refusal(400, AZURE_FILTER, {}).details == {"reason": "content_filter"}


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcDEF123456",
        "sk-ant-api03-abcdef",
        "Bearer abcdefghijkl",
        "rd_abcdefghijklmnop",
        "https://internal.example.com/v1?key=1",
        "http://10.0.0.1:8000/x",
        "/home/user/models/x.gguf",
        "/usr/lib/python3/site-packages/vllm.py",
        "/srv/.cache/huggingface",
        "/var/log/x.log",
        "/opt/model.bin",
        "/app/main.py",
    ],
)
def test_a_message_is_shown_without(secret: str) -> None:
    shown = safe(f"It failed for {secret} just now")
    assert secret not in shown
    assert shown == "It failed for [removed] just now"


@pytest.mark.parametrize(
    "secret",
    ["/tmp/x/model.gguf", "/data/models/llama.bin", "/mnt/disk/x.py", "AIzaSyA1234567890abcdefghijklmnopqrstuv"],
)
def test_a_message_is_shown_without_other_places_and_keys(secret: str) -> None:
    assert secret not in safe(f"It failed for {secret} just now")


@pytest.mark.parametrize(
    "ordinary", ["the key is missing", "use max_tokens/temperature", "and/or 3/4", "a skill-based"]
)
def test_ordinary_words_stay(ordinary: str) -> None:
    assert safe(ordinary) == ordinary


@given(st.text())
def test_a_message_is_short_and_printable_whatever_it_was(text: str) -> None:
    shown = safe(text)
    assert len(shown) <= 500
    shown.encode()
    assert all(char.isprintable() or char == "\n" for char in shown)


@pytest.mark.parametrize("message", [None, 5, ["x"], {"a": 1}])
def test_a_message_that_is_no_text_is_none(message: Any) -> None:
    assert safe(message) == ""


@given(
    st.integers(200, 599),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["error", "message", "code", "type", "param", "n_ctx"]), inner, max_size=4
            )
        ),
        max_leaves=9,
    ),
)
def test_any_body_of_any_status_makes_an_error_of_ours(status: int, body: Any) -> None:
    assert isinstance(refusal(status, body, {}), RedriveError)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "Retry-After": "7"}, 0.25),
        ({"retry-after-ms": "x", "Retry-After": "7"}, 7),
        ({"Retry-After": "-5"}, 0),
        ({"Retry-After": "1e300"}, 86_400),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
    ],
)
def test_a_wait_is_read_from(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_wait_is_a_finite_number_of_seconds(value: str) -> None:
    wait = retry_after({"Retry-After": value})
    assert wait is None or 0 <= wait <= 86_400


def test_a_wait_may_be_a_date() -> None:
    wait = retry_after({"Retry-After": formatdate(time.time() + 20, usegmt=True)})
    assert wait == pytest.approx(20, abs=2)


def test_a_limit_without_a_wait_is_a_second() -> None:
    assert refusal(429, None, {}).retry_after == 1
    assert refusal(429, None, {"Retry-After": "0"}).retry_after == 0
    assert refusal(503, None, {"Retry-After": "9"}).retry_after == 9


@pytest.mark.parametrize("field", ["message", "code", "type", "param"])
def test_what_was_sent_to_the_upstream_does_not_come_back_from_it(field: str) -> None:
    error = refusal(400, {"error": {field: "it was hunter2!"}}, {}, secrets={"hunter2"})
    assert "hunter2" not in f"{error.message} {error.param} {error.details}"


@pytest.mark.parametrize("field", ["code", "param"])
def test_no_field_of_an_upstream_shows_what_looks_like_a_key_or_is_endless(field: str) -> None:
    error = refusal(400, {"error": {"message": "no", field: "sk-prov-SECRET123456 " * 100}}, {})
    shown = f"{error.param} {error.details}"
    assert "SECRET" not in shown
    assert len(shown) < 400


@pytest.mark.parametrize("value", [{"a": ["x"]}, "sk-prov-SECRET", True, -1, 1e400, 10**40])
def test_a_context_error_counts_in_numbers(value: Any) -> None:
    inner = {"code": "context_length_exceeded", "message": "too long", "n_ctx": value, "n_prompt_tokens": value}
    assert refusal(400, {"error": inner}, {}).details == {"tokens_used": None, "max_tokens": None}
