"""A stream that is cut, silent or broken: a real status before the first piece, an error frame after it."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import MakeRoute
from tests.journeys.conftest import Client, Rows
from tests.journeys.scripts import event
from tests.journeys.wire import Reply, assert_error, assert_error_object, text_of
from tests.upstream import Upstream, chunk, hang, ok, status, stream

pytestmark = pytest.mark.django_db(transaction=True)

ROLE = {**chunk(None), "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
OVERLOADED = {"error": {"message": "overloaded at https://10.0.0.1/v1", "type": "server_error", "code": None}}


def assert_cut(reply: Reply, text: str, status: int, code: str) -> None:
    """What came is there, then one error frame, and nothing that looks like an end."""
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/event-stream")
    *before, last = reply.frames
    assert "[DONE]" not in reply.frames
    assert text_of(before) == text
    assert all(choice["finish_reason"] is None for frame in before for choice in frame["choices"])
    assert set(last) == {"error"}
    assert_error_object(last["error"], status, code, request_id=reply.request_id)


def test_a_whole_stream_ends_with_done_and_its_totals_are_in_the_ledger(
    route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows
) -> None:
    model = route(input_usd_per_million=1, output_usd_per_million=2)
    upstream.script(model, stream("one ", "two"))
    reply = client.chat(model, stream=True)
    assert reply.frames[-1] == "[DONE]"
    assert text_of(reply.frames) == "one two"
    assert not any("usage" in frame for frame in reply.frames[:-1])
    assert upstream.requests(model)[0].body["stream_options"] == {"include_usage": True}
    [row] = ledger(model)
    assert (row.outcome, row.stream, row.status, row.estimated) == ("succeeded", True, 200, False)
    assert (row.input_tokens, row.output_tokens, row.cost_nusd) == (10, 5, 20_000)
    assert row.ttft_ms is not None
    assert row.ttft_ms <= row.latency_ms


def test_an_upstream_without_usage_is_billed_by_an_estimate_that_is_marked(
    route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows
) -> None:
    model = route(output_usd_per_million=1)
    upstream.script(model, stream("12345678", "1234", usage=None))
    assert client.chat(model, stream=True).frames[-1] == "[DONE]"
    [row] = ledger(model)
    assert (row.outcome, row.estimated, row.output_tokens) == ("succeeded", True, 3)


def test_a_cut_stream_ends_with_an_error_frame_and_bills_what_came(
    route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows
) -> None:
    model = route()
    upstream.script(model, stream("12345678", "1234", cut=True))
    assert_cut(client.chat(model, stream=True), "123456781234", 502, "model_error")
    assert len(upstream.requests(model)) == 1
    [row] = ledger(model)
    assert (row.outcome, row.error_code, row.estimated, row.output_tokens) == ("interrupted", "model_error", True, 3)
    assert row.input_tokens > 0


def test_a_stream_that_ends_without_a_terminal_event_is_cut(
    route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows
) -> None:
    model = route()
    upstream.script(model, stream("some ", "text", finish=False))
    assert_cut(client.chat(model, stream=True), "some text", 502, "model_error")
    assert ledger(model)[0].outcome == "interrupted"


def test_a_stream_that_falls_silent_ends_with_a_timeout_frame(
    route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows
) -> None:
    model = route(provider={"idle_timeout": 0.3})
    upstream.script(model, stream("some ", "text", then_hang=True))
    reply = client.chat(model, stream=True)
    assert_cut(reply, "some text", 504, "timeout")
    assert reply.seconds < 3 * 0.5
    [row] = ledger(model)
    assert (row.outcome, row.error_code, row.estimated) == ("interrupted", "timeout", True)


def test_a_stream_that_takes_longer_than_a_call_may_take_ends_with_a_timeout_frame(
    route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    model = route(provider={"total_timeout": 0.5})
    upstream.script(model, stream(*["x"] * 100, every=0.05))
    reply = client.chat(model, stream=True)
    assert_error_object(reply.frames[-1]["error"], 504, "timeout", request_id=reply.request_id)
    assert reply.seconds < 3 * 0.6


@pytest.mark.parametrize(
    "bad",
    [event(OVERLOADED), b"data: {not json\n\n", b'data: ["a list"]\n\n', b'data: {"choices": 7}\n\n'],
    ids=["error", "not json", "a list", "no choices"],
)
def test_a_broken_piece_ends_the_stream_with_an_error_frame(
    bad: bytes, route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows
) -> None:
    model = route()
    upstream.script(model, stream("fine", frames=(bad,), finish=False))
    reply = client.chat(model, stream=True)
    assert_cut(reply, "fine", 502, "model_error")
    assert b"10.0.0.1" not in reply.body
    assert ledger(model)[0].outcome == "interrupted"


@pytest.mark.parametrize(
    ("script", "expected", "code"),
    [
        (lambda: stream(frames=(event(OVERLOADED),), finish=False), 502, "model_error"),
        (lambda: stream(cut=True), 502, "model_error"),
        (lambda: stream(frames=(event(ROLE),), cut=True), 502, "model_error"),
        (lambda: stream(finish=False), 502, "model_error"),
        (lambda: status(503), 502, "model_error"),
        (lambda: status(422), 422, "model_error"),
        (lambda: hang(), 504, "timeout"),
        (lambda: stream(then_hang=True), 504, "timeout"),
        (lambda: stream(frames=(event(ROLE),), then_hang=True), 504, "timeout"),
    ],
    ids=["error frame", "cut", "cut after the role", "empty", "503", "422", "hangs", "hangs open", "hangs after role"],
)
def test_a_failure_before_the_first_piece_is_a_real_status(
    script: Callable[[], Any],
    expected: int,
    code: str,
    route: MakeRoute,
    client: Client,
    upstream: Upstream,
    ledger: Rows,
) -> None:
    models = [f"{letter}-{uuid4().hex}" for letter in "abc"]  # other upstreams are tried without waiting
    for each in models:
        upstream.script(each, script())
    model = route(upstreams=models, provider={"first_token_timeout": 0.3})
    reply = client.chat(model, stream=True)
    assert_error(reply, expected, code)
    rows = ledger(model, 1 if expected == 422 else 3)
    assert sum(len(upstream.requests(each)) for each in models) == len(rows)
    assert {(row.outcome, row.stream, row.output_tokens) for row in rows} == {("failed", True, 0)}


def test_a_context_error_as_the_first_event_is_our_400(route: MakeRoute, client: Client, upstream: Upstream) -> None:
    model = route()
    error = {"error": {"message": "too long", "code": "context_length_exceeded"}}
    upstream.script(model, stream(frames=(event(error),), finish=False))
    assert_error(client.chat(model, stream=True), 400, "context_length_exceeded", any_param=True)


def test_a_stream_without_content_is_whole(route: MakeRoute, client: Client, upstream: Upstream) -> None:
    model = route()
    upstream.script(model, stream())
    reply = client.chat(model, stream=True)
    assert (reply.status, reply.frames[-1]) == (200, "[DONE]")


def test_what_comes_before_the_first_content_does_not_bind_the_call_to_its_upstream(
    route: MakeRoute, client: Client, upstream: Upstream
) -> None:
    first, second = f"a-{uuid4().hex}", f"b-{uuid4().hex}"
    upstream.script(first, stream(frames=(event(ROLE),), cut=True))
    upstream.script(second, ok("from the second"))
    reply = client.chat(route(upstreams=[first, second]), stream=True)
    assert text_of(reply.frames) == "fromthesecond"
    assert reply.frames[-1] == "[DONE]"
    assert reply.headers["redrive-upstream"].endswith(f"/{second}")


def test_no_other_upstream_takes_over_after_the_first_content(
    route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows
) -> None:
    first, second = f"a-{uuid4().hex}", f"b-{uuid4().hex}"
    upstream.script(first, stream("half an ", cut=True))
    model = route(upstreams=[first, second])
    assert_cut(client.chat(model, stream=True), "half an ", 502, "model_error")
    assert upstream.requests(second) == []
    assert [row.upstream_model for row in ledger(model)] == [first]
