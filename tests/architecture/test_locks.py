"""A lock goes on installing when newer versions of what it pins are published."""

import re
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def pinned(lock: str) -> dict[str, set[str]]:
    """The packages of a lock, each with the extras that its line names."""
    lines = re.findall(r"^([\w.-]+)(?:\[([^\]]*)\])?==", (ROOT / lock).read_text(), re.MULTILINE)
    return {canonicalize_name(name): set(filter(None, extras.replace(" ", "").split(","))) for name, extras in lines}


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements/embedded.txt", "requirements/dev.txt"])
def test_what_is_asked_for_with_an_extra_is_pinned_with_it(lock: str) -> None:
    # pip looks for `coverage[toml]` apart from `coverage==...`: it takes the newest there is, and then has no hash.
    found, environment = pinned(lock), {**default_environment(), "extra": ""}
    lacking = []
    for name in found:
        try:
            asked = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:  # of another platform
            continue
        for one in asked:
            if one.extras and one.name in found and (one.marker is None or one.marker.evaluate(environment)):
                lacking += [f"{name} -> {one}"] if not one.extras <= found[canonicalize_name(one.name)] else []
    assert lacking == []
