"""What is left of a text once it is masked."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core import json_codec
from apps.tasks.masking import masked, masked_url

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)


@given(st.text(alphabet="abcdefgh ", min_size=12, max_size=60), json_values)
def test_no_text_survives_wherever_it_stands(secret: str, around: object) -> None:
    body = json.dumps({"messages": [{"content": secret, "more": around}], "input": [secret, {"deep": [secret]}]})
    assert secret not in masked(body)


def test_names_of_models_and_roles_stay_if_they_look_like_names() -> None:
    shown = json.loads(
        masked('{"model": "openai/gpt-4o", "role": "user", "name": "Ann", "temperature": 0.5, "n": null}')
    )
    assert shown == {"model": "openai/gpt-4o", "role": "user", "name": "(3 characters)", "temperature": 0.5, "n": None}
    assert json.loads(masked('{"model": "tell Ann that"}'))["model"] == "(13 characters)"


def test_a_vector_is_told_by_its_length() -> None:
    assert json.loads(masked(json.dumps({"embedding": [0.5] * 1536}))) == {"embedding": "(1,536 numbers)"}


def test_long_ones_are_cut() -> None:
    assert "(30 more)" in masked(json.dumps(["x"] * 80))
    assert len(masked(json.dumps([{str(key): 1 for key in range(500)}] * 50))) < 20_100


@pytest.mark.parametrize("body", ["", "{", "plain words", "[" * 100_000])
def test_what_is_no_json_is_told_by_its_length(body: str) -> None:
    assert masked(body) == f"({len(body):,} characters that are not readable JSON)"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pw@host.example:8443/a/b?token=x#y", "https://host.example:8443/a/b?..."),
        ("https://host.example/a", "https://host.example/a"),
        ("http://[", "(not readable)"),
        ("", ""),
    ],
)
def test_of_a_url_only_the_place_is_shown(url: str, shown: str) -> None:
    assert masked_url(url) == shown


def test_a_readable_text_keeps_every_character_that_can_be_shown() -> None:
    assert json_codec.readable('{"a":"é\\ud800"}') == '{\n  "a": "é\\ud800"\n}'
    assert json_codec.readable("no json") == "no json"
