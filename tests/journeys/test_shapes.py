"""Every key that OpenAI's schema requires is in the reply, whatever the upstream left out; defaults on the way up."""

from typing import Any

import pytest

from tests.conftest import MakeRoute
from tests.journeys.conftest import Client
from tests.journeys.scripts import answer, bare_stream
from tests.journeys.wire import assert_error, text_of
from tests.upstream import Upstream, vectors

pytestmark = pytest.mark.django_db(transaction=True)

# The `required` lists of OpenAI's published OpenAPI document.
COMPLETION = {"id", "object", "created", "model", "choices", "usage"}
CHOICE = {"index", "finish_reason", "logprobs", "message"}
MESSAGE = {"role", "content", "refusal"}
USAGE = {"prompt_tokens", "completion_tokens", "total_tokens"}
CHUNK = {"id", "object", "created", "model", "choices"}
CHUNK_CHOICE = {"index", "finish_reason", "delta"}


@pytest.mark.parametrize(
    "bare",
    [
        {"choices": [{"message": {"content": "hi"}}]},
        {"choices": [{"message": {"content": "hi"}}], "usage": None, "id": None, "created": None, "object": None},
        {"choices": [{"message": {"role": None, "content": "hi"}, "index": None, "finish_reason": None}], "usage": {}},
    ],
    ids=["left out", "null", "null inside"],
)
def test_a_bare_completion_is_completed(
    bare: dict[str, Any], route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    model = route()
    upstream.script(model, answer(bare))
    body = client.chat(model).json()
    assert body.keys() >= COMPLETION
    assert (body["object"], body["model"]) == ("chat.completion", model)
    assert isinstance(body["id"], str)
    assert isinstance(body["created"], int)
    [choice] = body["choices"]
    assert choice.keys() >= CHOICE
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)
    assert choice["message"].keys() >= MESSAGE
    assert (choice["message"]["role"], choice["message"]["content"]) == ("assistant", "hi")
    assert body["usage"].keys() >= USAGE
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"] > 0
    assert isinstance(body["cost_usd"], float)


def test_a_bare_tool_call_is_completed(route: MakeRoute, client: Client, upstream: Upstream) -> None:
    model = route()
    call = {"function": {"name": "weather", "arguments": "{}"}}
    upstream.script(model, answer({"choices": [{"message": {"tool_calls": [call]}}]}))
    [choice] = client.chat(model).json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    [made] = choice["message"]["tool_calls"]
    assert made.keys() >= {"id", "type", "function"}
    assert (made["type"], made["function"]) == ("function", call["function"])


def test_bare_chunks_are_completed(route: MakeRoute, client: Client, upstream: Upstream) -> None:
    model = route()
    pieces: list[dict[str, Any]] = [
        {"choices": [{"delta": {"content": "h"}}]},
        {"choices": [{"delta": {"content": "i"}, "index": None}], "id": None, "created": None},
        {"choices": [{"finish_reason": "stop"}]},
    ]
    upstream.script(model, bare_stream(*pieces))
    reply = client.chat(model, stream=True, stream_options={"include_usage": True})
    *chunks, last, done = reply.frames
    assert done == "[DONE]"
    assert text_of(chunks) == "hi"
    assert len(chunks) == 3
    for chunk in (*chunks, last):
        assert chunk.keys() >= CHUNK | {"usage"}
        assert (chunk["object"], chunk["model"], chunk["id"]) == ("chat.completion.chunk", model, last["id"])
    assert all(chunk["choices"][0].keys() >= CHUNK_CHOICE for chunk in chunks)
    assert [chunk["choices"][0]["index"] for chunk in chunks] == [0, 0, 0]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop"]
    assert last["choices"] == []
    assert last["usage"].keys() >= USAGE


@pytest.mark.parametrize("bare", [{"embedding": [0.5]}, {"embedding": [0.5], "index": None, "object": None}])
def test_bare_vectors_are_completed(bare: dict[str, Any], route: MakeRoute, client: Client, upstream: Upstream) -> None:
    model = route()
    upstream.script(model, answer({"data": [bare]}))
    body = client.call("POST", "/v1/embeddings", payload={"model": model, "input": "x"}).json()
    assert body.keys() >= {"object", "model", "data", "usage"}
    assert (body["object"], body["model"]) == ("list", model)
    assert body["data"] == [{"object": "embedding", "index": 0, "embedding": [0.5]}]
    assert body["usage"].keys() >= {"prompt_tokens", "total_tokens"}


@pytest.mark.parametrize("data", [[], [{"embedding": [1]}] * 2, [{"embedding": {"a": 1}}], [{"embedding": "???"}], "x"])
def test_vectors_that_do_not_fit_the_inputs_are_502(
    data: Any, route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    model = route(provider={"breaker_failures": 100})
    upstream.script(model, answer({"data": data}))
    reply = client.call("POST", "/v1/embeddings", payload={"model": model, "input": "x"})
    assert_error(reply, 502, "model_error")


def test_models_have_the_required_keys(route: MakeRoute, client: Client) -> None:
    model = route()
    assert client.chat(model).status == 200  # the gateway knows the route by now
    body = client.call("GET", "/v1/models").json()
    assert body["object"] == "list"
    [listed] = [each for each in body["data"] if each["id"] == model]
    assert listed.keys() >= {"id", "object", "created", "owned_by"}


def test_the_routes_defaults_are_sent_where_the_client_sent_nothing(
    route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    model = route()
    assert client.chat(model).status == 200
    sent = upstream.requests(model)[0].body
    assert (sent["temperature"], sent["max_tokens"], "max_completion_tokens" in sent) == (0.7, 1024, False)


def test_what_the_client_sent_wins_over_the_routes_defaults(
    route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    model = route()
    assert client.chat(model, temperature=0, max_tokens=7).status == 200
    sent = upstream.requests(model)[0].body
    assert (sent["temperature"], sent["max_tokens"]) == (0, 7)


def test_max_tokens_is_never_sent_beside_max_completion_tokens(
    route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    model = route()
    assert client.chat(model, max_completion_tokens=9).status == 200
    sent = upstream.requests(model)[0].body
    assert sent["max_completion_tokens"] == 9
    assert "max_tokens" not in sent


def test_a_route_without_defaults_adds_nothing(route: MakeRoute, client: Client, upstream: Upstream) -> None:
    model = route(default_params={})
    assert client.chat(model).status == 200
    assert upstream.requests(model)[0].body.keys() == {"model", "messages"}


def test_an_unknown_field_is_refused_or_forwarded_as_the_route_says(
    route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    strict, open_ = route(), route(unknown_fields="forward")
    assert_error(client.chat(strict, top_k=5), 400, "validation_error", param="top_k")
    assert client.chat(open_, top_k=5).status == 200
    assert upstream.requests(open_)[0].body["top_k"] == 5
    assert upstream.requests(strict) == []
    upstream.script(open_, vectors())
    payload = {"model": open_, "input": "x", "truncate": True}
    assert client.call("POST", "/v1/embeddings", payload=payload).status == 200
    assert upstream.requests(open_)[1].body["truncate"] is True


def test_content_is_stripped_and_everything_else_passes_as_it_came(
    route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    model = route(default_params={})
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    fields: dict[str, Any] = {
        "seed": 7,
        "n": 2,
        "stop": ["\n"],
        "logprobs": True,
        "top_logprobs": 3,
        "response_format": schema,
        "reasoning_effort": "low",
        "logit_bias": {"50256": -100},
        "user": "ada",
        "parallel_tool_calls": False,
        "metadata": {"a": "b"},
    }
    assert (
        client.chat(model, messages=[{"role": "user", "content": "  hi there \n"}], store=False, **fields).status == 200
    )
    sent = upstream.requests(model)[0].body
    assert sent == {"model": model, "messages": [{"role": "user", "content": "hi there"}], **fields}


def test_keys_that_the_gateway_does_not_know_pass_in_a_reply(
    route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    model = route()
    upstream.script(
        model,
        answer(
            {
                "choices": [{"message": {"content": "x", "annotations": [1]}, "content_filter_results": {"a": 1}}],
                "service_tier": "default",
                "system_fingerprint": "fp_1",
                "usage": {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}},
            }
        ),
    )
    body = client.chat(model).json()
    assert (body["service_tier"], body["system_fingerprint"]) == ("default", "fp_1")
    assert body["choices"][0]["content_filter_results"] == {"a": 1}
    assert body["choices"][0]["message"]["annotations"] == [1]
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 1}
    assert body["usage"]["total_tokens"] == 3


def test_storing_is_refused_until_there_is_a_store(route: MakeRoute, client: Client, upstream: Upstream) -> None:
    model = route()
    assert_error(client.chat(model, store=True), 400, "validation_error", param="store")
    assert_error(client.chat(model, store=True, stream=True), 400, "validation_error", param="store")
    assert upstream.requests(model) == []
