"""The path of a wrong field, as the client wrote it."""

from typing import Any

import pytest

from config.api import field_path

BODY = {"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": [{"type": "text"}]}], "n": 0}


@pytest.mark.parametrize(
    ("location", "path"),
    [
        (("body", "payload", "n"), "n"),
        (("body", "payload", "messages"), "messages"),
        (("body", "payload", "messages", 0, "content"), "messages[0].content"),
        (("body", "payload", "messages", 0, "user", "content"), "messages[0].content"),
        (("body", "payload", "messages", 1, "user", "content", "<list>", 0, "type"), "messages[1].content[0].type"),
        (("body", "payload"), ""),
        (("body",), ""),
        ((), ""),
    ],
)
def test_the_path_of_a_field_is(location: tuple[Any, ...], path: str) -> None:
    assert field_path(location, BODY) == path


def test_an_absent_field_is_named_too() -> None:
    location = ("body", "payload", "messages", 1, "user", "content", "<list>", 0, "text", "text")
    assert field_path(location, BODY, names_absent_field=True) == "messages[1].content[0].text"
    assert field_path(("body", "payload", "model"), BODY, names_absent_field=True) == "model"


def test_a_field_that_is_called_as_the_frame_does_not_lead_astray() -> None:
    body = {"body": {"n": 1}, "payload": {"n": 1}, "n": 0}
    assert field_path(("body", "payload", "n"), body) == "n"


def test_a_path_is_never_long() -> None:
    name = "x" * 5000
    assert len(field_path(("body", "payload", name), {name: 1})) <= 200


@pytest.mark.parametrize("body", [None, [], "x", 5])
def test_a_body_that_is_no_object_has_no_path(body: Any) -> None:
    assert field_path(("body", "payload", "n"), body) == ""
