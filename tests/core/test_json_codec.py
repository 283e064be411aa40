"""JSON in and out: strict towards clients, lenient towards providers, never an error on the way out."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.json_codec import ascii_dumps, dumps, loads, loads_strict

BROKEN = [
    b"",
    b"{",
    b"{} x",
    b"{'a': 1}",
    b"[1,]",
    b"NaN",
    b"[Infinity]",
    b"[-Infinity]",
    b'{"a": NaN}',
    b'"\xff"',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"01",
    b"\xff\xfe",
]


@pytest.mark.parametrize("raw", BROKEN)
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    for reader in (loads, loads_strict):
        with pytest.raises(ValueError):
            reader(raw)


@pytest.mark.parametrize("raw", [b"[1e999]", b"[-1e999]", b'["\\ud800", 1e999]'])
def test_a_number_beyond_every_double_is_refused(raw: bytes) -> None:
    for reader in (loads, loads_strict):
        with pytest.raises(ValueError):
            reader(raw)


@pytest.mark.parametrize("raw", [b'"\\ud800"', b'{"a": "x\\udc00"}', b'{"\\ud83d": 1}'])
def test_a_lone_surrogate_is_a_providers_right_and_not_a_clients(raw: bytes) -> None:
    with pytest.raises(ValueError):
        loads_strict(raw)
    value = loads(raw)
    assert loads(dumps(value)) == value
    dumps(value).decode()


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert loads_strict(b'"\\ud83d\\ude00"') == loads(b'"\\ud83d\\ude00"') == "😀"


def test_a_nul_goes_there_and_back() -> None:
    assert loads(dumps({"a": "\x00"})) == {"a": "\x00"}
    assert "\\u0000" in ascii_dumps({"a": "\x00"})
    assert "\x00" not in ascii_dumps({"a": "\x00"})


@pytest.mark.parametrize("number", [2**64, -(2**64), 10**40])
def test_a_huge_number_does_not_break_the_writer(number: int) -> None:
    assert math.isclose(float(loads(dumps([number]))[0]), float(number))


def test_deep_nesting_is_read_as_far_as_it_can_be_written() -> None:
    deep = b"[" * 300 + b"]" * 300
    assert loads(dumps(loads(deep))) == loads(deep)


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(ANY)
def test_every_value_goes_there_and_back(value: Any) -> None:
    assert loads(dumps(value)) == value


@given(ANY)
def test_what_is_stored_is_ascii_without_nul(value: Any) -> None:
    text = ascii_dumps(value)
    assert text.isascii()
    assert "\x00" not in text
    assert json.loads(text) == value


@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_or_a_value_error(raw: bytes) -> None:
    for reader in (loads, loads_strict):
        try:
            reader(raw)
        except ValueError:
            continue
