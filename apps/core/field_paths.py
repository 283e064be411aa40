"""Turns Pydantic's complaint about a client's value into the error that names the field as the client wrote it."""

from collections.abc import Mapping
from typing import Any

from apps.core.errors import InvalidRequest


def invalid(complaint: Mapping[str, Any], location: tuple[Any, ...], value: Any) -> InvalidRequest:
    """The error for one of Pydantic's complaints about `value`. location: where in it, without a framework's frame."""
    names_absent_field = complaint["type"] in {"missing", "union_tag_not_found"}
    param = field_path(location, value, names_absent_field=names_absent_field)
    reason = str(complaint["msg"]).removeprefix("Value error, ")
    return InvalidRequest(f"{param}: {reason}" if param else reason, param=param or None)


def field_path(location: tuple[Any, ...], value: Any, *, names_absent_field: bool = False) -> str:
    """`messages[0].content`: Pydantic's location as far as it leads through the value.

    What it names besides (members of unions) is in no value and is left out; the last part stays if
    the complaint is that this field is absent.
    """
    path, here = "", value
    for place, part in enumerate(location):
        if (isinstance(here, dict) and part in here) or (isinstance(here, list) and part in range(len(here))):
            here = here[part]
        elif not (names_absent_field and place == len(location) - 1 and isinstance(part, str)):
            continue
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path[:200]
