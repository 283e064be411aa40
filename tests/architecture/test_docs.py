"""What the pages show works as it stands there, and what they point to exists."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from apps.tasks import kinds
from apps.tasks.executor import Executor
from apps.tasks.lifecycle import wake
from apps.tasks.models import TaskResult
from tests.tasks.conftest import MakeTask, make_kind, make_task, on_db, until, worker

__all__ = ["make_kind", "make_task", "worker"]

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "bench/README.md", *(ROOT / "docs").rglob("*.md")]


def blocks(page: str, language: str = "python") -> list[str]:
    """The code of a page."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


async def test_the_kind_of_the_page_counts_words_alone_and_as_a_parent(worker: Executor, make_task: MakeTask) -> None:
    code = blocks("docs/add-a-kind.md")
    shown: dict[str, Any] = {}
    exec(code[0] + code[3], shown)
    parent = kinds.Kind("count_all", shown["CountWords"], shown["count_all"])
    for kind in (shown["KIND"], parent):
        kinds.register(kind)
    try:
        task = await on_db(make_task)(shown["KIND"], args={"texts": ["one two", "three"]})
        assert (await until(task, "succeeded")).progress
        assert json.loads((await on_db(TaskResult.objects.get)(pk=task.pk)).body) == {"counts": [2, 1]}
        bad = await until(await on_db(make_task)(shown["KIND"], args={"texts": [" "]}), "dead")
        assert json.loads(bad.error)["param"] == "texts"
        whole = await on_db(make_task)(parent, args={"texts": ["a b c", "d"]})
        for _ in range(100):
            await on_db(wake.wake)()
            try:
                await until(whole, "succeeded", within=0.1)
                break
            except TimeoutError:
                continue
        assert json.loads((await on_db(TaskResult.objects.get)(pk=whole.pk)).body) == {"counts": [3, 1]}
    finally:
        for kind in (shown["KIND"], parent):
            kinds._kinds.pop(kind.name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_points_to_what_exists(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_pages_that_the_code_names_exist() -> None:
    named = {
        (name, str(path.relative_to(ROOT)))
        for folder in ("apps", "config", "bench", "tests")
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(r"\b(?:docs|bench)/[\w/.-]+\.md", path.read_text())
    }
    assert [pair for pair in sorted(named) if not (ROOT / pair[0]).exists()] == []
