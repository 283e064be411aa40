"""Identifiers."""

import re

import pytest

from apps.core import ids
from tests.races import together


@pytest.mark.parametrize("sane", ["a", "req_1", "trace:00-4bf9/x+y=z@h.example", "x" * 128, "0.0-_"])
def test_a_clients_sane_request_id_is_kept(sane: str) -> None:
    assert ids.request_id(sane) == sane


@pytest.mark.parametrize(
    "insane",
    [None, "", " ", "a b", "x" * 129, "a\n", "a\r\nx: y", "é", "\x00", "<script>", "a;b", "a,b", '"a"', "日本"],
)
def test_any_other_is_replaced_by_ours(insane: str | None) -> None:
    assert re.fullmatch(r"req_[0-9a-f]{32}", ids.request_id(insane))


def test_the_order_of_ids_is_their_age() -> None:
    made = [ids.new_uuid() for _ in range(2000)]
    assert made == sorted(made)
    assert {one.version for one in made} == {7}
    hexes = [ids.new_hex() for _ in range(2000)]
    assert hexes == sorted(hexes)


def test_a_completion_id_is_letters_and_digits() -> None:
    made = {ids.completion_id() for _ in range(2000)}
    assert len(made) == 2000
    assert all(re.fullmatch(r"chatcmpl-[A-Za-z0-9]+", one) for one in made)


def test_threads_never_make_the_same_id() -> None:
    made = together(8, lambda _: [ids.new_hex() for _ in range(2000)])
    assert len({one for some in made for one in some}) == 16_000  # type: ignore[union-attr]
