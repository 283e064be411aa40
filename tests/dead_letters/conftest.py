"""Tasks that die, with their letters."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from apps.core.errors import InvalidRequest
from apps.dead_letters.models import DeadLetter
from apps.tasks.lifecycle.ending import Ending, failure_of
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import Task
from tests.tasks.conftest import MakeKind, MakeTask, as_person, ending, make_kind, make_task, take_all, worker

__all__ = ["as_person", "make_kind", "make_task", "worker"]
MakeLetter = Callable[..., DeadLetter]


def deaths(tasks: Sequence[Task], errors: Sequence[Exception], upstream: str = "") -> list[Ending]:
    """The deaths of running tasks of one queue, each of its error; not written yet."""
    return [
        ending(
            claimed, "dead", "failed", charged=True, upstream=upstream,
            failure=failure_of(error, kind=claimed.kind, upstream=upstream),
        )
        for claimed, error in zip(take_all(tasks), errors, strict=True)
    ]  # fmt: skip


def die(task: Task, *, error: Exception | None = None, upstream: str = "") -> None:
    """End the task's next attempt with the error."""
    task.refresh_from_db()
    assert finish(deaths([task], [error or InvalidRequest("It does not fit.")], upstream)) == ["dead"]


@pytest.fixture
def make_letter(make_task: MakeTask) -> MakeLetter:
    """The letter of a task that died: `make_letter(error=..., upstream=..., project_id=...)`."""

    def make(*, error: Exception | None = None, upstream: str = "", **fields: Any) -> DeadLetter:
        task = make_task(**fields)
        die(task, error=error, upstream=upstream)
        return DeadLetter.objects.get(task_id=task.pk)

    return make


@pytest.fixture
def letters(make_letter: MakeLetter, make_kind: MakeKind) -> list[DeadLetter]:
    """Thirty of one group."""
    kind = make_kind()
    return [make_letter(kind=kind) for _ in range(30)]
