"""The page docs/websocket.md: its example runs, its codes and messages are those of the code."""

import os
import re
import subprocess
import sys
from typing import get_args

import pytest

from apps.core.conf import ROOT
from apps.streaming import closing, schemas
from tests.conftest import MakeKey, MakeRoute
from tests.gateway import Gateway

PAGE = (ROOT / "docs" / "websocket.md").read_text()


@pytest.mark.django_db(transaction=True)
def test_the_example_in_python_runs(door: Gateway, make_key: MakeKey, make_route: MakeRoute) -> None:
    found = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert found
    code = found[1].replace("127.0.0.1:8000", f"127.0.0.1:{door.port}").replace("rd_...", make_key()[1])
    code = code.replace("gpt-4o-mini", make_route())
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=30, env={**os.environ}
    )
    assert ran.stderr == ""
    lines = ran.stdout.splitlines()
    assert {"a hello", "b hello"} <= set(lines)
    assert sorted(line.split(" cost ")[0] for line in lines if " cost " in line) == ["a", "b"]


def test_every_message_and_every_code_of_ours_is_on_the_page() -> None:
    for message in get_args(schemas.ClientMessage):
        [type_] = get_args(message.model_fields["type"].annotation)
        assert f"`{type_}`" in PAGE or f'"type": "{type_}"' in PAGE
        for field in set(message.model_fields) - {"type", "payload"}:
            assert f"`{field}" in PAGE
    for code in closing.REASONS:
        assert f"| {code} " in PAGE
