"""`manage.py tasks`."""

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from apps.access.models import AuditEntry, Project
from apps.tasks import queues
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import Task, shown_id
from tests.tasks.conftest import MakeTask, ending, take

pytestmark = pytest.mark.django_db


def tasks(*args: str) -> str:
    """Its standard output."""
    out = StringIO()
    call_command("tasks", *args, stdout=out, stderr=StringIO())
    return out.getvalue()


def rows(*args: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in tasks(*args, "--json").splitlines()]


def shown(task: Task) -> str:
    return shown_id(task.pk)


def test_a_list_has_a_line_for_each_newest_first(make_task: MakeTask) -> None:
    project = Project.objects.create(name="mine")
    first, second = make_task(project_id=project.pk), make_task(queue="low")
    head, *lines = tasks("list").splitlines()
    assert head.split()[:4] == ["ID", "STATE", "KIND", "QUEUE"]
    assert [line.split()[0] for line in lines] == [shown(second), shown(first)]
    assert "mine" in lines[1]


def test_a_list_is_narrowed(make_task: MakeTask) -> None:
    project = Project.objects.create(name="mine")
    task, other = make_task(project_id=project.pk), make_task(queue="low")
    Task.objects.filter(pk=other.pk).update(state="cancelled", finished_at=timezone.now())
    for options, expected in (
        (["--state", "cancelled"], [other]),
        (["--kind", task.kind], [task]),
        (["--queue", "low"], [other]),
        (["--project", "mine"], [task]),
        (["--limit", "1"], [other]),
        (["--state", "dead"], []),
    ):
        assert [row["id"] for row in rows("list", *options)] == [shown(one) for one in expected], options


def test_one_task_is_shown_with_its_attempts_and_its_texts_only_on_demand(make_task: MakeTask) -> None:
    task = make_task(args={"input": "secret words"})
    finish([ending(take(task), result='{"content": "an answer"}')])
    out = tasks("show", shown(task))
    assert "succeeded" in out
    assert "OUTCOME" in out
    assert "secret words" not in out
    assert not AuditEntry.objects.exists()
    out = tasks("show", shown(task), "--reveal", "--reason", "ticket 7")
    assert "secret words" in out
    assert "an answer" in out
    (row,) = rows("show", shown(task), "--reveal")
    assert (row["state"], row["timeline"][0]["outcome"]) == ("succeeded", "succeeded")
    assert json.loads(row["texts"]["payload"]) == {"input": "secret words"}
    assert set(AuditEntry.objects.values_list("action", "actor")) == {("reveal", "command line")}


def test_several_are_cancelled_and_what_cannot_be_is_named(make_task: MakeTask) -> None:
    waiting, done = make_task(), make_task()
    Task.objects.filter(pk=done.pk).update(state="succeeded", finished_at=timezone.now())
    running = make_task(queue="high")
    take(running)
    assert tasks("cancel", shown(waiting), shown(running), "--reason", "twice").splitlines() == [
        f"{shown(waiting)}: cancelled",
        f"{shown(running)}: it runs, and is told to end",
    ]
    assert AuditEntry.objects.filter(action="cancel", reason="twice", actor="command line").count() == 2
    with pytest.raises(CommandError, match="1 of 2 could not be cancelled"):
        tasks("cancel", shown(done), shown(waiting))


def test_queues_are_listed_paused_and_resumed(make_task: MakeTask) -> None:
    make_task(queue="low")
    assert tasks("pause", "low", "--reason", "receiver is down", "--minutes", "5").startswith("low: paused until ")
    (low,) = (one for one in queues.overview() if one.name == "low")
    assert (low.is_paused, low.paused_by, low.due) == (True, "command line", 1)
    assert "receiver is down" in tasks("queues")
    assert {row["name"]: row["due"] for row in rows("queues")}["low"] == 1
    assert tasks("resume", "low") == "low: open\n"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["show", "nonsense"], "no such task"),
        (["show", "task_0197f000000070008000000000000000"], "no such task"),
        (["list", "--kind", "nonsense"], "There are: alert_notification, chat_completion"),
        (["list", "--project", "nonsense"], "none of the name nonsense"),
        (["list", "--limit", "0"], "from 1 to"),
        (["pause", "low", "--reason", " "], "Say why"),
        (["pause", "low", "--reason", "r", "--minutes", "-1"], "has passed"),
        (["pause", "low", "--reason", "r", "--minutes", "1e300"], "number of minutes"),
        (["pause", "low", "--reason", "r", "--minutes", "nan"], "number of minutes"),
        (["resume", "low"], "is not paused"),
    ],
)
def test_what_is_refused_is_one_clear_line(args: list[str], said: str) -> None:
    with pytest.raises(CommandError, match=said) as refused:
        tasks(*args)
    assert "\n" not in str(refused.value)
    assert refused.value.returncode == 1


@pytest.mark.parametrize("args", [["list", "--state", "nonsense"], ["pause", "low"], ["nonsense"], []])
def test_wrong_usage_is_told_from_a_refusal(args: list[str]) -> None:
    with pytest.raises(CommandError, match="(invalid choice|required)"):
        tasks(*args)


def test_nothing_a_client_wrote_steers_the_terminal(make_task: MakeTask) -> None:
    task = make_task(request_id="\x1b[2Jreq")
    out = tasks("show", shown(task))
    assert "\x1b" not in out
    assert "[2Jreq" in out
