"""The official SDK, unchanged, against the gateway: answers, streams, vectors, models, errors, retries."""

import asyncio
import base64
import struct
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import openai
import pytest
from django.db import connection
from openai import AsyncOpenAI, OpenAI

from apps.providers.models import ModelRoute
from tests.conftest import MakeKey, MakeRoute
from tests.gateway import Gateway
from tests.journeys.conftest import HELLO
from tests.journeys.scripts import answer, bare_stream
from tests.journeys.wire import eventually
from tests.upstream import Upstream, chunk, completion, hang, ok, status, stream, vectors

pytestmark = pytest.mark.django_db(transaction=True)
ClientOf = Callable[..., OpenAI]


@pytest.fixture
def sdk(transactional_db: None, make_key: MakeKey, client_of: ClientOf) -> OpenAI:
    """The SDK with a key of its own and without retries."""
    return client_of(make_key()[1])


def test_a_chat_is_answered(route: MakeRoute, sdk: OpenAI, upstream: Upstream) -> None:
    model = route()
    reply = sdk.chat.completions.create(model=model, messages=HELLO, temperature=0.2)
    assert reply.choices[0].message.content == "hello"
    assert (reply.model, reply.object, reply.choices[0].finish_reason) == (model, "chat.completion", "stop")
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (10, 5, 15)
    assert reply.id.startswith("chatcmpl-")
    assert reply._request_id
    assert reply._request_id.startswith("req_")
    sent = upstream.requests(model)[0]
    assert sent.body["temperature"] == 0.2
    assert sent.headers["Authorization"] == "Bearer sk-upstream-secret"


def test_a_stream_is_chunks_of_one_id_time_and_model(route: MakeRoute, sdk: OpenAI, upstream: Upstream) -> None:
    model = route()
    upstream.script(model, stream("one ", "two ", "three"))
    chunks = list(sdk.chat.completions.create(model=model, messages=HELLO, stream=True))
    assert "".join(each.choices[0].delta.content or "" for each in chunks) == "one two three"
    assert {each.model for each in chunks} == {model}
    assert len({each.id for each in chunks}) == len({each.created for each in chunks}) == 1
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(each.usage is None for each in chunks)


def test_include_usage_adds_one_last_chunk_with_the_totals(route: MakeRoute, sdk: OpenAI, upstream: Upstream) -> None:
    model = route()
    upstream.script(model, stream("one"))
    options: Any = {"include_usage": True}
    *chunks, last = list(sdk.chat.completions.create(model=model, messages=HELLO, stream=True, stream_options=options))
    assert (last.choices, last.id, last.model) == ([], chunks[0].id, model)
    assert last.usage is not None
    assert last.usage.total_tokens == 15
    assert all(each.usage is None and "usage" in each.model_fields_set for each in chunks)


TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


def test_tool_calls_pass_through_both_ways(route: MakeRoute, sdk: OpenAI, upstream: Upstream) -> None:
    model = route()
    message = {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}
    upstream.script(model, answer({**completion(""), "choices": [{"message": message, "finish_reason": "tool_calls"}]}))
    reply = sdk.chat.completions.create(model=model, messages=HELLO, tools=TOOLS, tool_choice="auto")
    calls = reply.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].model_dump(exclude_unset=True) == TOOL_CALL
    assert reply.choices[0].finish_reason == "tool_calls"
    result = {"role": "tool", "tool_call_id": "call_1", "content": "rain"}
    messages: Any = [*HELLO, message, result]
    sdk.chat.completions.create(model=model, messages=messages, tools=TOOLS)
    assert upstream.requests(model)[0].body["tools"] == TOOLS
    assert upstream.requests(model)[1].body["messages"] == messages


def test_streamed_tool_calls_pass_through(route: MakeRoute, sdk: OpenAI, upstream: Upstream) -> None:
    model = route()
    delta = {"role": "assistant", "tool_calls": [{"index": 0, **TOOL_CALL}]}
    first = {**chunk(None), "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    upstream.script(model, bare_stream(first, chunk(None, "tool_calls")))
    chunks = list(sdk.chat.completions.create(model=model, messages=HELLO, tools=TOOLS, stream=True))
    calls = chunks[0].choices[0].delta.tool_calls
    assert calls is not None
    assert calls[0].function is not None
    assert calls[0].function.arguments == '{"city": "Oslo"}'
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


async def test_the_asynchronous_sdk_works_too(
    route: MakeRoute, make_key: MakeKey, gateway: Gateway, upstream: Upstream
) -> None:
    def prepare() -> tuple[str, str]:
        try:
            return route(), make_key()[1]
        finally:
            connection.close()

    model, secret = await asyncio.to_thread(prepare)
    async with AsyncOpenAI(api_key=secret, base_url=f"{gateway.url}/v1", max_retries=0) as sdk:
        reply = await sdk.chat.completions.create(model=model, messages=HELLO)
        assert reply.choices[0].message.content == "hello"
        chunks = [each async for each in await sdk.chat.completions.create(model=model, messages=HELLO, stream=True)]
        assert "".join(each.choices[0].delta.content or "" for each in chunks) == "hello"


def test_embeddings_come_as_floats_whatever_the_sdk_asks(route: MakeRoute, sdk: OpenAI, upstream: Upstream) -> None:
    model = route()
    upstream.script(model, vectors())
    by_default = sdk.embeddings.create(model=model, input="one text")  # the SDK asks for base64 and decodes it
    as_floats = sdk.embeddings.create(model=model, input="one text", encoding_format="float")
    assert by_default.data[0].embedding == as_floats.data[0].embedding == [0.25] * 4
    assert (as_floats.model, as_floats.usage.prompt_tokens, as_floats.usage.total_tokens) == (model, 3, 3)
    assert as_floats._request_id


def test_base64_is_little_endian_floats_in_either_direction(route: MakeRoute, sdk: OpenAI, upstream: Upstream) -> None:
    model = route()
    packed = base64.b64encode(struct.pack("<3f", 1.5, -2.0, 0.25)).decode()
    upstream.script(model, answer({"data": [{"index": 0, "embedding": [1.5, -2.0, 0.25]}]}))
    as_text = sdk.embeddings.create(model=model, input="x", encoding_format="base64")
    assert as_text.data[0].embedding == packed
    upstream.script(model, answer({"data": [{"index": 0, "embedding": packed}]}))
    as_floats = sdk.embeddings.create(model=model, input="x", encoding_format="float")
    assert as_floats.data[0].embedding == [1.5, -2.0, 0.25]


@pytest.mark.parametrize(
    ("given", "count"),
    [(["a", "b", "c"], 3), ([1, 2, 3], 1), ([[1, 2], [3]], 2), (["a"] * 2048, 2048)],
    ids=["texts", "tokens", "token lists", "2048 texts"],
)
def test_batches_and_token_arrays_give_one_vector_each_in_order(
    given: Any, count: int, route: MakeRoute, sdk: OpenAI, upstream: Upstream
) -> None:
    model = route()
    upstream.script(model, vectors(2))
    reply = sdk.embeddings.create(model=model, input=given, dimensions=2)
    assert [each.index for each in reply.data] == list(range(count))
    assert reply.data[-1].embedding == [0.25 * count] * 2
    sent = upstream.requests(model)[0].body
    assert (sent["input"], sent["dimensions"]) == (given, 2)


def test_models_are_listed_and_found_whatever_their_names_hold(
    route: MakeRoute, sdk: OpenAI, upstream: Upstream
) -> None:
    plain, odd = route(), f"maker/model-{uuid4().hex[:6]}:8b@q4_0"
    ModelRoute.objects.filter(public_name=route()).update(public_name=odd)

    def both() -> dict[str, Any]:
        found = {model.id: model for model in sdk.models.list()}
        return found if {plain, odd} <= found.keys() else {}

    listed = eventually(both, within=3, every=0.1)  # changes are in force within a second
    assert listed
    found = sdk.models.retrieve(odd)
    assert (found.id, found.object, found.created) == (odd, "model", listed[odd].created)
    assert found.owned_by
    assert sdk.chat.completions.create(model=odd, messages=HELLO).model == odd
    with pytest.raises(openai.NotFoundError) as refused:
        sdk.models.retrieve("maker/none:1@x")
    assert refused.value.code == "model_not_found"


ERRORS: dict[str, tuple[Any, type[openai.APIStatusError], str | None]] = {
    "400": (status(400), openai.BadRequestError, "model_error"),
    "404": (status(404), openai.NotFoundError, "model_error"),
    "409": (status(409), openai.ConflictError, "model_error"),
    "422": (status(422), openai.UnprocessableEntityError, "model_error"),
    "429": (status(429, headers={"Retry-After": "60"}), openai.RateLimitError, "model_error"),
    "401": (status(401), openai.InternalServerError, "upstream_credentials_exhausted"),
    "500": (status(500), openai.InternalServerError, "model_error"),
    "hang": (hang(), openai.InternalServerError, "timeout"),
}


@pytest.mark.parametrize(("script", "kind", "code"), ERRORS.values(), ids=ERRORS)
def test_a_providers_failure_is_the_sdks_own_class(
    script: Any, kind: type[openai.APIStatusError], code: str, route: MakeRoute, sdk: OpenAI, upstream: Upstream
) -> None:
    model = route(provider={"total_timeout": 0.5 if code == "timeout" else 60})
    upstream.script(model, script)
    with pytest.raises(kind) as refused:
        sdk.chat.completions.create(model=model, messages=HELLO)
    assert type(refused.value) is kind
    assert refused.value.code == code
    assert refused.value.request_id
    assert refused.value.request_id.startswith("req_")


def test_our_own_refusals_are_the_sdks_own_classes(
    route: MakeRoute, sdk: OpenAI, make_key: MakeKey, client_of: ClientOf
) -> None:
    model = route()
    limited = client_of(make_key(rpm=1, allowed_models=[model])[1])
    poor = client_of(make_key(limits={"monthly_budget_usd": 0})[1])
    assert limited.chat.completions.create(model=model, messages=HELLO).model == model
    refusals: list[tuple[type[openai.APIStatusError], OpenAI, dict[str, Any], tuple[int, str, str | None]]] = [
        (openai.BadRequestError, sdk, {"temperature": 9}, (400, "validation_error", "temperature")),
        (openai.AuthenticationError, client_of("rd_wrong"), {}, (401, "invalid_api_key", None)),
        (openai.APIStatusError, poor, {}, (402, "budget_exceeded", None)),
        (openai.PermissionDeniedError, limited, {"model": route()}, (403, "permission_denied", "model")),
        (openai.NotFoundError, sdk, {"model": "none"}, (404, "model_not_found", "model")),
        (openai.RateLimitError, limited, {}, (429, "rate_limit_exceeded", None)),
    ]
    for kind, who, fields, expected in refusals:
        with pytest.raises(kind) as refused:
            who.chat.completions.create(**{"model": model, "messages": HELLO, **fields})
        assert (refused.value.status_code, refused.value.code, refused.value.param) == expected


def test_an_error_in_a_stream_is_raised_by_the_sdk(route: MakeRoute, sdk: OpenAI, upstream: Upstream) -> None:
    model = route()
    upstream.script(model, stream("half ", "an", cut=True))
    chunks = sdk.chat.completions.create(model=model, messages=HELLO, stream=True)
    assert [next(chunks).choices[0].delta.content for _ in range(2)] == ["half ", "an"]
    with pytest.raises(openai.APIError) as refused:
        next(chunks)
    assert refused.value.code == "model_error"


def test_the_headers_say_where_an_answer_came_from_and_what_is_left(
    route: MakeRoute, sdk: OpenAI, upstream: Upstream
) -> None:
    model = route()
    given = {"X-Request-ID": "my-own/id:1"}
    raw = sdk.chat.completions.with_raw_response.create(model=model, messages=HELLO, extra_headers=given)
    headers = raw.headers
    assert (headers["x-request-id"], raw.parse()._request_id) == ("my-own/id:1", "my-own/id:1")
    assert headers["redrive-upstream"].endswith(f"/{model}")
    assert headers["redrive-attempts"] == "1"
    assert float(headers["redrive-overhead-ms"]) >= 0
    assert headers["x-ratelimit-limit-requests"] == "100000"
    assert headers["x-ratelimit-remaining-requests"] == "99999"
    assert headers["x-ratelimit-reset-requests"].endswith("s")


def test_the_sdk_comes_again_when_a_limit_says_so(
    route: MakeRoute, make_key: MakeKey, client_of: ClientOf, upstream: Upstream
) -> None:
    model, seen = route(), list[int]()
    hooks: Any = {"response": [lambda response: seen.append(response.status_code)]}
    sdk = client_of(make_key(rpm=30)[1], max_retries=2, http_client=openai.DefaultHttpxClient(event_hooks=hooks))
    for _ in range(32):
        assert sdk.chat.completions.create(model=model, messages=HELLO).model == model
        if 429 in seen:
            break
    assert seen[-2:] == [429, 200]
    assert len(upstream.requests(model)) == seen.count(200)


def test_the_sdk_obeys_that_a_retry_cannot_help(
    route: MakeRoute, make_key: MakeKey, client_of: ClientOf, upstream: Upstream
) -> None:
    model = route(provider={"breaker_failures": 100})
    upstream.script(model, status(500), status(500), status(500), ok())
    with pytest.raises(openai.InternalServerError):
        client_of(make_key()[1], max_retries=2).chat.completions.create(model=model, messages=HELLO)
    assert len(upstream.requests(model)) == 3
