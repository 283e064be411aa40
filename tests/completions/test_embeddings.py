"""Embeddings: limits of the request, vectors as floats and as base64."""

import base64
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from apps.completions.embeddings import _encode, _vectors
from apps.completions.schemas.embeddings import EmbeddingsRequest
from apps.providers.errors import UpstreamBroken


def valid(**fields: Any) -> bool:
    """Whether a request with these fields passes."""
    try:
        EmbeddingsRequest.model_validate({"input": "x", **fields})
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    "fields",
    [
        {"input": "x" * 100_000},
        {"input": ["x"] * 2048},
        {"input": [1, 2, 3]},
        {"input": [[1, 2], [3]]},
        {"dimensions": 1},
        {"dimensions": 3072},
        {"encoding_format": "base64"},
        {"user": "u" * 256},
    ],
    ids=lambda fields: str(fields)[:40],
)
def test_a_request_passes_with(fields: dict[str, Any]) -> None:
    assert valid(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"input": ""},
        {"input": []},
        {"input": None},
        {"input": 5},
        {"input": "x" * 100_001},
        {"input": ["x"] * 2049},
        {"input": [""]},
        {"input": ["a\x00"]},
        {"input": "a\x00"},
        {"input": ["x", 5]},
        {"input": [1, "x"]},
        {"input": [True]},
        {"input": [-1]},
        {"input": [2**31]},
        {"input": [1.5]},
        {"input": [[]]},
        {"input": [[1], []]},
        {"input": [[1], "x"]},
        {"input": {"a": 1}},
        {"dimensions": 0},
        {"dimensions": 3073},
        {"dimensions": True},
        {"encoding_format": "hex"},
        {"model": "a b"},
        {"user": "u" * 257},
    ],
    ids=lambda fields: str(fields)[:40],
)
def test_a_request_is_refused_with(fields: dict[str, Any]) -> None:
    assert not valid(**fields)


@pytest.mark.parametrize(
    ("value", "tokens"), [("x" * 400, 100), ("x", 1), (["x" * 8, "y" * 8], 4), ([1, 2, 3], 3), ([[1, 2], [3]], 3)]
)
def test_tokens_are_estimated(value: Any, tokens: int) -> None:
    assert EmbeddingsRequest.model_validate({"input": value}).tokens() == tokens


def little_endian(floats: list[float]) -> str:
    """OpenAI's base64 of a vector."""
    return base64.b64encode(struct.pack(f"<{len(floats)}f", *floats)).decode()


FLOATS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=64)


@given(FLOATS)
def test_floats_become_little_endian_base64(floats: list[float]) -> None:
    assert _encode(floats, "base64") == little_endian(floats)


@given(FLOATS)
def test_base64_becomes_floats_again(floats: list[float]) -> None:
    assert _encode(little_endian(floats), "float") == floats


@given(FLOATS)
def test_what_is_right_already_is_left_as_it_is(floats: list[float]) -> None:
    assert _encode(floats, "float") == floats
    assert _encode(little_endian(floats), "base64") == little_endian(floats)


@pytest.mark.parametrize("encoding", ["float", "base64"])
@pytest.mark.parametrize(
    "vector", [None, 5, {}, {"a": 1}, ["x"], [None], [[1.0]], "not base64!", "AAA=", True, [10**400]]
)
def test_what_is_no_vector_is_a_broken_upstream(vector: Any, encoding: str) -> None:
    with pytest.raises(UpstreamBroken):
        _encode(vector, encoding)


def vectors(*items: Any, expected: int) -> list[Any]:
    """The embeddings of an answer with these items."""
    return [one["embedding"] for one in _vectors({"data": list(items)}, expected, "float")]


def test_vectors_come_in_the_order_of_the_inputs() -> None:
    found = _vectors({"data": [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]}, 2, "float")
    assert found == [
        {"object": "embedding", "index": 0, "embedding": [1.0]},
        {"object": "embedding", "index": 1, "embedding": [2.0]},
    ]


def test_vectors_without_an_index_are_in_order_already() -> None:
    assert vectors({"embedding": [1.0]}, {"embedding": [2.0]}, expected=2) == [[1.0], [2.0]]


@pytest.mark.parametrize("index", [None, "0", [], {}, 1.5, True])
def test_an_odd_index_does_not_break_the_answer(index: Any) -> None:
    found = vectors({"index": index, "embedding": [1.0]}, {"index": index, "embedding": [2.0]}, expected=2)
    assert found == [[1.0], [2.0]]


@pytest.mark.parametrize(
    "body", [{}, {"data": None}, {"data": []}, {"data": [{}]}, {"data": ["x", "y"]}, {"data": [{"embedding": [1.0]}]}]
)
def test_another_number_of_vectors_than_inputs_is_a_broken_upstream(body: dict[str, Any]) -> None:
    with pytest.raises(UpstreamBroken):
        _vectors(body, 2, "float")
