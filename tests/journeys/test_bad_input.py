"""Whatever is wrong with a request: the right 4xx with the name of the field, no call to a provider, no ledger row."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import MakeRoute
from tests.journeys.conftest import HELLO, Client, Rows
from tests.journeys.wire import assert_error
from tests.upstream import Upstream, vectors

pytestmark = pytest.mark.django_db(transaction=True)

DEEP = 100_000
CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"


@pytest.fixture
def untouched(route: MakeRoute, client: Client, upstream: Upstream, ledger: Rows) -> Iterator[str]:
    """A model; afterwards a good request is the only one that reached the upstream and the ledger."""
    model = route()
    yield model
    assert client.chat(model).status == 200
    assert len(upstream.requests(model)) == 1
    assert len(ledger(model)) == 1


def says(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def parts(*content: Any) -> list[dict[str, Any]]:
    return says(list(content))


FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "messages missing": ({"messages": ...}, "messages"),
    "messages null": ({"messages": None}, "messages"),
    "messages text": ({"messages": "hello"}, "messages"),
    "messages object": ({"messages": {"0": HELLO[0]}}, "messages"),
    "messages empty": ({"messages": []}, "messages"),
    "messages 1001": ({"messages": HELLO * 1001}, "messages"),
    "message text": ({"messages": ["hello"]}, "messages[0]"),
    "message null": ({"messages": [*HELLO, None]}, "messages[1]"),
    "role missing": ({"messages": [{"content": "x"}]}, "messages[0]"),
    "role unknown": ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0]"),
    "role number": ({"messages": [{"role": 1, "content": "x"}]}, "messages[0]"),
    "role list": ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0]"),
    "content missing": ({"messages": [{"role": "user"}]}, "messages[0].content"),
    "content null": ({"messages": says(None)}, "messages[0].content"),
    "content number": ({"messages": says(7)}, "messages[0].content"),
    "content bool": ({"messages": says(True)}, "messages[0].content"),
    "content object": ({"messages": says({"text": "x"})}, "messages[0].content"),
    "content empty": ({"messages": says("")}, "messages[0].content"),
    "content blank": ({"messages": [*HELLO, *says(" \n\t ")]}, "messages[1].content"),
    "content long": ({"messages": says("x" * 100_001)}, "messages[0].content"),
    "content NUL": ({"messages": says("a\x00b")}, "messages[0].content"),
    "parts empty": ({"messages": says([])}, "messages[0].content"),
    "part number": ({"messages": parts(1)}, "messages[0].content[0]"),
    "part unknown": ({"messages": parts({"type": "smell"})}, "messages[0].content[0]"),
    "part text null": ({"messages": parts({"type": "text", "text": None})}, "messages[0].content[0].text"),
    "part text NUL": ({"messages": parts({"type": "text", "text": "\x00"})}, "messages[0].content[0].text"),
    "name empty": ({"messages": [{"role": "user", "content": "x", "name": ""}]}, "messages[0].name"),
    "name long": ({"messages": [{"role": "user", "content": "x", "name": "n" * 65}]}, "messages[0].name"),
    "tool_call_id missing": ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
    "model null": ({"model": None}, "model"),
    "model number": ({"model": 7}, "model"),
    "model empty": ({"model": ""}, "model"),
    "model space": ({"model": "gpt 4"}, "model"),
    "model newline": ({"model": "gpt-4\n"}, "model"),
    "model markup": ({"model": "<b>"}, "model"),
    "model long": ({"model": "m" * 129}, "model"),
    "temperature low": ({"temperature": -0.1}, "temperature"),
    "temperature high": ({"temperature": 2.1}, "temperature"),
    "temperature text": ({"temperature": "0.7"}, "temperature"),
    "temperature bool": ({"temperature": True}, "temperature"),
    "temperature huge": ({"temperature": 10**40}, "temperature"),
    "top_p high": ({"top_p": 1.01}, "top_p"),
    "frequency_penalty low": ({"frequency_penalty": -2.1}, "frequency_penalty"),
    "presence_penalty high": ({"presence_penalty": 2.1}, "presence_penalty"),
    "max_tokens zero": ({"max_tokens": 0}, "max_tokens"),
    "max_tokens negative": ({"max_tokens": -1}, "max_tokens"),
    "max_tokens high": ({"max_tokens": 16_385}, "max_tokens"),
    "max_tokens huge": ({"max_tokens": 10**40}, "max_tokens"),
    "max_tokens 64 bits": ({"max_tokens": 2**64}, "max_tokens"),
    "max_tokens float": ({"max_tokens": 1.5}, "max_tokens"),
    "max_tokens text": ({"max_tokens": "10"}, "max_tokens"),
    "max_tokens bool": ({"max_tokens": True}, "max_tokens"),
    "max_completion_tokens bool": ({"max_completion_tokens": False}, "max_completion_tokens"),
    "n zero": ({"n": 0}, "n"),
    "n bool": ({"n": True}, "n"),
    "seed huge": ({"seed": 10**40}, "seed"),
    "stop five": ({"stop": ["a"] * 5}, "stop"),
    "stop number": ({"stop": 1}, "stop"),
    "stop item number": ({"stop": [1]}, "stop[0]"),
    "stream text": ({"stream": "true"}, "stream"),
    "stream number": ({"stream": 1}, "stream"),
    "stream_options alone": ({"stream_options": {"include_usage": True}}, "stream_options"),
    "include_usage text": ({"stream": True, "stream_options": {"include_usage": "y"}}, "stream_options.include_usage"),
    "store": ({"store": True}, "store"),
    "user long": ({"user": "u" * 257}, "user"),
    "user number": ({"user": 7}, "user"),
    "user NUL": ({"user": "a\x00"}, "user"),
    "tools object": ({"tools": {}}, "tools"),
    "tool number": ({"tools": [1]}, "tools[0]"),
    "tool type": ({"tools": [{"type": "hammer"}]}, "tools[0].type"),
    "response_format text": ({"response_format": "json"}, "response_format"),
    "logit_bias list": ({"logit_bias": [1]}, "logit_bias"),
    "logit_bias high": ({"logit_bias": {"50256": 101}}, "logit_bias.50256"),
    "top_logprobs high": ({"top_logprobs": 21}, "top_logprobs"),
    "metadata number": ({"metadata": {"a": 1}}, "metadata.a"),
    "unknown field": ({"frobnicate": 1}, "frobnicate"),
    "unknown field null": ({"frobnicate": None}, "frobnicate"),
}


@pytest.mark.parametrize(("fields", "param"), FIELDS.values(), ids=FIELDS)
def test_a_wrong_field_of_a_chat_is_400_with_its_path(
    fields: dict[str, Any], param: str, untouched: str, client: Client
) -> None:
    body = {"model": untouched, "messages": HELLO, **fields}
    reply = client.call("POST", CHAT, payload={name: value for name, value in body.items() if value is not ...})
    assert_error(reply, 400, "validation_error", param=param)


BODIES: dict[str, tuple[Callable[[bytes], bytes], str | None]] = {
    "empty": (lambda good: b"", None),
    "blank": (lambda good: b" \n", None),
    "half": (lambda good: good[:-3], None),
    "two": (lambda good: good + good, None),
    "trailing comma": (lambda good: good[:-1] + b",}", None),
    "single quotes": (lambda good: good.replace(b'"', b"'"), None),
    "list": (lambda good: b"[" + good + b"]", None),
    "text": (lambda good: b'"hello"', None),
    "number": (lambda good: b"1", None),
    "null": (lambda good: b"null", None),
    "NaN": (lambda good: good[:-1] + b', "temperature": NaN}', None),
    "Infinity": (lambda good: good[:-1] + b', "temperature": Infinity}', None),
    "-Infinity": (lambda good: good[:-1] + b', "top_p": -Infinity}', None),
    "not UTF-8": (lambda good: good.replace(b"hello there", b"hell\xff"), None),
    "UTF-16": (lambda good: good.decode().encode("utf-16"), None),
    "raw control character": (lambda good: good.replace(b"hello there", b"hell\x01"), None),
    "deep lists": (lambda good: good[:-1] + b', "x": ' + b"[" * DEEP + b"]" * DEEP + b"}", None),
    "deep objects": (lambda good: b'{"a":' * DEEP + b"1" + b"}" * DEEP, None),
    "only brackets": (lambda good: b"[" * DEEP, None),
    "float beyond floats": (lambda good: good[:-1] + b', "temperature": 1e400}', "temperature"),
    "integer of 5000 digits": (lambda good: good[:-1] + b', "max_tokens": ' + b"9" * 5000 + b"}", "max_tokens"),
    "surrogate in content": (lambda good: good.replace(b"hello there", b"\\ud800"), "messages[0].content"),
    "surrogate in model": (lambda good: good.replace(b'"model": "', b'"model": "\\udfff'), "model"),
    "surrogate in a name": (lambda good: good[:-1] + b', "\\ud800": 1}', None),
    "raw surrogate": (lambda good: good.replace(b"hello there", b"\xed\xa0\x80"), None),
}


@pytest.mark.parametrize(("spoil", "param"), BODIES.values(), ids=BODIES)
def test_a_body_that_is_no_good_json_object_is_400(
    spoil: Callable[[bytes], bytes], param: str | None, untouched: str, client: Client
) -> None:
    good = b'{"model": "%s", "messages": [{"role": "user", "content": "hello there"}]}' % untouched.encode()
    reply = client.call("POST", CHAT, body=spoil(good))
    assert_error(reply, 400, "validation_error", any_param=True)
    # What is refused as JSON has no field; what is refused as a value names it.
    assert reply.error["param"] in {None, param}
    assert len(reply.body) < 2000


INPUTS: dict[str, tuple[Any, str]] = {
    "missing": (..., "input"),
    "null": (None, "input"),
    "number": (7, "input"),
    "bool": (True, "input"),
    "object": ({"text": "x"}, "input"),
    "empty text": ("", "input"),
    "long text": ("x" * 100_001, "input"),
    "NUL": ("a\x00", "input"),
    "empty list": ([], "input"),
    "list of an empty list": ([[]], "input[0]"),
    "list of an empty text": (["a", ""], "input[1]"),
    "2049 texts": (["a"] * 2049, "input"),
    "2049 token lists": ([[1]] * 2049, "input"),
    "text and number": (["a", 1], "input[1]"),
    "number and text": ([1, "a"], "input[1]"),
    "list and text": ([[1], "a"], "input[1]"),
    "text and list": (["a", [1]], "input[1]"),
    "null in a list": ([None], "input[0]"),
    "bools": ([True, False], "input[0]"),
    "negative token": ([-1], "input[0]"),
    "huge token": ([10**40], "input[0]"),
    "float token": ([[1.5]], "input[0][0]"),
    "too deep": ([[[1]]], "input[0][0]"),
}


@pytest.mark.parametrize(("given", "param"), INPUTS.values(), ids=INPUTS)
def test_a_wrong_input_of_embeddings_is_400_with_its_path(
    given: Any, param: str, untouched: str, client: Client
) -> None:
    payload = {"model": untouched} if given is ... else {"model": untouched, "input": given}
    assert_error(client.call("POST", EMBEDDINGS, payload=payload), 400, "validation_error", param=param)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dimensions", 0),
        ("dimensions", 3073),
        ("dimensions", True),
        ("dimensions", "8"),
        ("encoding_format", "hex"),
        ("user", "u" * 257),
        ("model", "a b"),
        ("messages", HELLO),
    ],
)
def test_a_wrong_field_of_embeddings_is_400_with_its_name(
    field: str, value: Any, untouched: str, client: Client, upstream: Upstream
) -> None:
    payload = {"model": untouched, "input": "x", field: value}
    assert_error(client.call("POST", EMBEDDINGS, payload=payload), 400, "validation_error", param=field)


def test_the_largest_inputs_that_are_allowed_are_served(route: MakeRoute, client: Client, upstream: Upstream) -> None:
    model = route()
    text = "x" * 100_000
    assert client.chat(model, messages=says(text)).status == 200
    assert client.chat(model, messages=HELLO * 1000, stop=["a"] * 4, user="u" * 256).status == 200
    upstream.script(model, vectors())
    for given in (text, ["a"] * 2048, [1, 2, 3], [[1], [2, 3]]):
        payload = {"model": model, "input": given, "dimensions": 3072}
        assert client.call("POST", EMBEDDINGS, payload=payload).status == 200
