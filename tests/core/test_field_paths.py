"""The path of a wrong field, as the client wrote it."""

from typing import Any

import pytest

from apps.core.field_paths import field_path, invalid

BODY = {"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": [{"type": "text"}]}], "n": 0}


@pytest.mark.parametrize(
    ("location", "path"),
    [
        (("n",), "n"),
        (("messages",), "messages"),
        (("messages", 0, "content"), "messages[0].content"),
        (("messages", 0, "user", "content"), "messages[0].content"),
        (("messages", 1, "user", "content", "<list>", 0, "type"), "messages[1].content[0].type"),
        ((), ""),
    ],
)
def test_the_path_of_a_field_is(location: tuple[Any, ...], path: str) -> None:
    assert field_path(location, BODY) == path


def test_an_absent_field_is_named_too() -> None:
    location = ("messages", 1, "user", "content", "<list>", 0, "text", "text")
    assert field_path(location, BODY, names_absent_field=True) == "messages[1].content[0].text"
    assert field_path(("model",), BODY, names_absent_field=True) == "model"


def test_a_path_is_never_long() -> None:
    name = "x" * 5000
    assert len(field_path((name,), {name: 1})) <= 200


@pytest.mark.parametrize("body", [None, [], "x", 5])
def test_a_body_that_is_no_object_has_no_path(body: Any) -> None:
    assert field_path(("n",), body) == ""


def test_a_complaint_says_where_and_why_without_pydantics_own_words() -> None:
    complaint = {"type": "value_error", "msg": "Value error, a NUL character is not allowed"}
    error = invalid(complaint, ("messages", 0, "user", "content"), BODY)
    assert (error.code, error.param) == ("validation_error", "messages[0].content")
    assert error.message == "messages[0].content: a NUL character is not allowed"
