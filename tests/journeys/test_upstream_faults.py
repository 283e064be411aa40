"""An upstream that is down, slow, refusing or talking nonsense: the status that api.md promises, and the ledger."""

from typing import Any
from uuid import uuid4

import pytest

from apps.providers.models import Provider
from tests.conftest import MakeRoute
from tests.gateway import free_port
from tests.journeys.conftest import Client, Rows
from tests.journeys.scripts import answer, redirect
from tests.journeys.wire import assert_error, eventually
from tests.upstream import Upstream, completion, hang, ok, raw, status

pytestmark = pytest.mark.django_db(transaction=True)


def test_an_answer_is_one_row_with_the_upstreams_own_numbers(
    route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows
) -> None:
    model = route(input_usd_per_million=1, output_usd_per_million=2)
    reply = client.chat(model, user="ada")
    assert reply.status == 200
    [row] = ledger(model)
    assert (row.outcome, row.status, row.attempt, row.error_code) == ("succeeded", 200, 1, "")
    assert (row.input_tokens, row.output_tokens, row.cost_nusd, row.estimated) == (10, 5, 10 * 1000 + 5 * 2000, False)
    assert (row.request_id, row.upstream_request_id, row.end_user) == (reply.request_id, "up-1", "ada")
    assert reply.headers["redrive-upstream"] == f"{row.provider}/{row.upstream_model}"
    assert reply.headers["redrive-attempts"] == "1"
    assert reply.json()["cost_usd"] == pytest.approx(row.cost_usd)


def test_a_price_that_nobody_knows_is_marked_as_estimated(
    route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows
) -> None:
    model = route()
    client.chat(model)
    [row] = ledger(model)
    assert (row.cost_nusd, row.estimated) == (15 * 1000, True)


@pytest.mark.parametrize("code", [400, 404, 409, 413, 422])
def test_a_refusal_passes_with_its_status_and_is_not_tried_again(
    code: int, route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows
) -> None:
    model = route()
    upstream.script(model, status(code, {"error": {"message": "tools are not for this model", "param": "tools"}}))
    reply = client.chat(model)
    assert_error(reply, code, "model_error", param="tools")
    assert "tools are not for this model" in reply.error["message"]
    assert len(upstream.requests(model)) == 1
    [row] = ledger(model)
    assert (row.outcome, row.status, row.error_code) == ("failed", code, "model_error")
    assert (row.input_tokens, row.output_tokens, row.cost_nusd) == (0, 0, 0)


def test_a_refusals_message_is_shown_without_secrets_addresses_and_paths(
    route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    model = route()
    secrets = (
        "sk-proj-Abc123Def456Ghi789",
        "https://internal.example.com:8443/v1/secret",
        "/usr/lib/python3/site-packages/server.py",
        "Bearer eyJhbGciOiJIUzI1NiJ9.payload",
    )
    upstream.script(model, status(400, {"error": {"message": f"temperature: bad value {' and '.join(secrets)}"}}))
    reply = client.chat(model)
    assert_error(reply, 400, "model_error")
    assert "temperature: bad value" in reply.error["message"]
    for secret in (*secrets, "eyJhbGci", "internal.example.com", "sk-upstream-secret"):
        assert secret not in reply.body.decode()


@pytest.mark.parametrize("code", [401, 402, 403])
def test_refused_credentials_are_502_and_block_the_upstream_until_the_provider_is_saved(
    code: int, route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows
) -> None:
    model = route()
    upstream.script(model, status(code, {"error": {"message": "bad key sk-upstream-secret"}}), ok())
    reply = client.chat(model)
    assert_error(reply, 502, "upstream_credentials_exhausted")
    assert reply.headers["x-should-retry"] == "false"
    assert "sk-upstream-secret" not in reply.body.decode()
    again = client.chat(model)
    assert_error(again, 502, "upstream_credentials_exhausted")
    assert again.headers["x-should-retry"] == "false"
    assert len(upstream.requests(model)) == 1
    [row] = ledger(model)
    assert (row.outcome, row.status, row.error_code) == ("failed", code, "upstream_credentials_exhausted")
    Provider.objects.get(upstreams__model=model).save()
    assert eventually(lambda: client.chat(model).status == 200, within=3.0, every=0.1)


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("500", status(500)),
        ("503", status(503)),
        ("not json", raw(b"<html>oops</html>", "text/html")),
        ("half json", raw(b'{"id": "x", "choices": [')),
        ("a list", raw(b"[]")),
        ("nan", raw(b'{"choices": [{"message": {"content": "x"}, "index": NaN}]}')),
        ("200 with an error", answer({"error": {"message": "overloaded", "type": "server_error"}})),
        ("200 with an error text", answer({"error": "overloaded"})),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_answer_is_502_after_three_tries(
    name: str, script: Any, route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows
) -> None:
    models = [f"{letter}-{uuid4().hex}" for letter in "abcd"]  # other upstreams are tried without waiting
    for each in models:
        upstream.script(each, script)
    model = route(upstreams=models)
    reply = client.chat(model)
    assert_error(reply, 502, "model_error")
    assert (reply.headers["redrive-attempts"], reply.headers["x-should-retry"]) == ("3", "false")
    assert [len(upstream.requests(each)) for each in models] == [1, 1, 1, 0]
    rows = ledger(model, 3)
    assert [(row.attempt, row.upstream_model) for row in rows] == list(zip([1, 2, 3], models[:3], strict=True))
    expected = int(name) if name.isdigit() else 200
    assert {(row.outcome, row.status, row.error_code) for row in rows} == {("failed", expected, "model_error")}
    assert {row.request_id for row in rows} == {reply.request_id}


def test_the_only_upstream_is_tried_three_times_with_pauses(
    route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows
) -> None:
    model = route(provider={"breaker_failures": 100})
    upstream.script(model, status(503))
    reply = client.chat(model)
    assert_error(reply, 502, "model_error")
    assert reply.seconds < 3 + 3  # at most one second, then at most two
    assert len(upstream.requests(model)) == 3
    assert [row.attempt for row in ledger(model, 3)] == [1, 2, 3]


@pytest.mark.parametrize("body", [{"choices": "none"}, {"choices": [{"text": "old"}]}, {"object": "chat.completion"}])
def test_an_answer_without_choices_is_502(
    body: dict[str, Any], route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    model = route(provider={"breaker_failures": 100})
    upstream.script(model, answer(body))
    assert_error(client.chat(model), 502, "model_error")


def test_a_retry_that_succeeds_is_an_ordinary_answer(
    route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows
) -> None:
    model = route()
    upstream.script(model, status(503), ok("second"))
    reply = client.chat(model)
    assert reply.json()["choices"][0]["message"]["content"] == "second"
    assert reply.headers["redrive-attempts"] == "2"
    rows = ledger(model, 2)
    assert [(row.attempt, row.outcome) for row in rows] == [(1, "failed"), (2, "succeeded")]


def test_an_upstream_that_is_down_is_502_and_cost_nothing(route: MakeRoute, client: Client, ledger: Rows) -> None:
    model = route(provider={"base_url": f"http://127.0.0.1:{free_port()}/v1"})
    assert_error(client.chat(model), 502, "model_error")
    rows = ledger(model, 3)
    assert {(row.outcome, row.status, row.cost_nusd, row.input_tokens) for row in rows} == {("failed", None, 0, 0)}


def test_an_upstream_that_is_slow_is_504_and_its_input_is_billed_as_estimated(
    route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows
) -> None:
    model = route(provider={"total_timeout": 0.4})
    upstream.script(model, hang())
    reply = client.chat(model)
    assert_error(reply, 504, "timeout")
    assert reply.seconds < 3 * 0.4
    [row] = ledger(model)
    assert (row.outcome, row.status, row.error_code) == ("failed", None, "timeout")
    assert (row.estimated, row.output_tokens) == (True, 0)
    assert row.input_tokens > 0


def test_an_upstreams_429_with_a_long_retry_after_is_passed_on_at_once(
    route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows
) -> None:
    model = route()
    upstream.script(model, status(429, headers={"Retry-After": "30"}))
    reply = client.chat(model)
    assert_error(reply, 429, "model_error")
    assert (reply.headers["retry-after"], reply.headers["retry-after-ms"]) == ("30", "30000")
    assert len(upstream.requests(model)) == 1
    [row] = ledger(model)
    assert (row.outcome, row.status, row.cost_nusd) == ("failed", 429, 0)


def test_an_upstreams_429_without_retry_after_still_says_when_to_come_again(
    route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    model = route()
    upstream.script(model, status(429))
    reply = client.chat(model)
    assert_error(reply, 429, "model_error")
    assert int(reply.headers["retry-after"]) >= 1
    assert int(reply.headers["retry-after-ms"]) >= 1
    assert len(upstream.requests(model)) == 3


def test_a_short_retry_after_is_waited_for(route: MakeRoute, client: Client, upstream: Upstream) -> None:
    model = route()
    upstream.script(model, status(429, headers={"retry-after-ms": "1200"}), ok())
    reply = client.chat(model)
    assert reply.status == 200
    assert reply.seconds >= 1.2


CONTEXT = "This model's maximum context length is 4096 tokens. However, your messages resulted in 5000 tokens."


@pytest.mark.parametrize(
    "inner", [{"message": CONTEXT, "code": "context_length_exceeded", "param": "messages"}, {"message": CONTEXT}]
)
def test_an_upstreams_context_error_is_ours_with_its_numbers(
    inner: dict[str, str], route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    model = route()
    upstream.script(model, status(400, {"error": inner}))
    reply = client.chat(model)
    assert_error(reply, 400, "context_length_exceeded", any_param=True)
    assert reply.error["details"] == {"tokens_used": 5000, "max_tokens": 4096}
    assert len(upstream.requests(model)) == 1


@pytest.mark.parametrize("code", ["content_filter", "content_policy_violation"])
def test_an_upstreams_content_filter_is_ours_with_its_reason(
    code: str, route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    model = route()
    upstream.script(model, status(400, {"error": {"message": "The response was filtered.", "code": code}}))
    reply = client.chat(model)
    assert_error(reply, 400, "content_filtered", any_param=True)
    assert reply.error["details"]["reason"] == code


def test_redirects_are_not_followed(route: MakeRoute, client: Client, upstream: Upstream) -> None:
    target, model = f"t-{uuid4().hex}", route(provider={"breaker_failures": 100})
    upstream.script(model, redirect(f"{upstream.url}/chat/completions?model={target}"))
    assert_error(client.chat(model), 502, "model_error")
    # A followed redirect would be one more request: of the same method and body, or refused by the script.
    assert len(upstream.requests(model)) == 3


def test_an_upstreams_odd_answer_passes_where_it_is_harmless(
    route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    model = route()
    odd = completion("a \ud800 b \x00 c", usage={"prompt_tokens": -1, "completion_tokens": "many"})
    upstream.script(model, answer(odd))
    reply = client.chat(model)
    assert reply.status == 200
    assert reply.json()["usage"]["prompt_tokens"] >= 1
