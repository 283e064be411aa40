"""`manage.py demo` makes what looks like a day with an outage, holds to every invariant, and goes without a trace."""

import json
import re
from collections import Counter
from datetime import timedelta
from io import StringIO
from random import Random
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from apps.access.models import ApiKey, AuditEntry, Project
from apps.completions.models import LedgerEntry
from apps.core.errors import Conflict
from apps.core.ids import first_of
from apps.dead_letters import grouping, tallies, triage
from apps.dead_letters.bulk import control, pacer, plan
from apps.dead_letters.demo import project, removal
from apps.dead_letters.demo.failures import CAUSES
from apps.dead_letters.models import BulkItem, BulkOperation, DeadLetter, FailureGroup, GroupHour, GroupKey, GroupTally
from apps.dead_letters.queries import sparklines
from apps.tasks import kinds, states
from apps.tasks.models import Task, TaskAttempt, TaskPayload
from tests.commands import ran
from tests.dead_letters.conftest import MakeLetter, die
from tests.dead_letters.test_triage import broken
from tests.tasks.conftest import MakeTask, take

pytestmark = pytest.mark.django_db
REMEMBERED = {"access_auditentry", "core_config_version", "tasks_clockbeat"}


def demo(*args: str, code: int = 0) -> str:
    """Its standard output and error, once it has ended with the code."""
    return ran("demo", *args, code=code)


def rows() -> dict[str, list[Any]]:
    """All rows of our tables, but of those that remember."""
    found = {}
    with connection.cursor() as cursor:
        for model in apps.get_models():
            table = model._meta.db_table
            if model.__module__.startswith("apps.") and table not in REMEMBERED:
                cursor.execute(f"SELECT to_jsonb(t) FROM {table} t ORDER BY 1")
                found[table] = cursor.fetchall()
    return found


@pytest.mark.django_db(transaction=True)
def test_a_whole_demo_takes_seconds_and_holds_to_every_invariant() -> None:
    out = demo("--seed", "7")
    [seconds] = re.findall(r"2,000 tasks in ([\d.]+) s, seed 7", out)
    assert float(seconds) < 20
    assert "No clock ticks" in out
    found = Counter(Task.objects.values_list("state", flat=True))
    assert found["dead"] + DeadLetter.objects.filter(outcome="succeeded").count() == 600
    assert (found["pending"], found["retrying"], sum(found.values())) == (7, 7, 2000)
    assert broken() == []
    call_command("verify", stdout=StringIO())
    groups = FailureGroup.objects.all()
    assert groups.count() == len(CAUSES)
    assert set(groups.values_list("state", flat=True)) == {"for_review", "resolved", "snoozed"}
    assert not GroupTally.objects.exists()
    assert DeadLetter.objects.filter(state="discarded").exists()
    assert sum(group.open_count for group in groups) == DeadLetter.objects.filter(state="open").count()
    assert sum(hour.died for hour in GroupHour.objects.all()) == sum(key.died for key in GroupKey.objects.all()) == 600


def test_it_is_spread_over_a_day_with_an_outage() -> None:
    demo("--tasks", "1000", "--seed", "1")
    now = timezone.now()
    for task in Task.objects.all():
        end = task.finished_at or now
        assert now - timedelta(hours=25) < task.created_at <= (task.started_at or end) <= end <= now
        assert first_of(task.created_at) <= task.pk <= first_of(task.created_at + timedelta(milliseconds=1))
    for number, ended, started in TaskAttempt.objects.values_list("number", "finished_at", "started_at"):
        assert started < ended <= now, number
    hours = Counter(int((now - one.created_at).total_seconds() // 3600) for one in DeadLetter.objects.all())
    assert len(hours) > 12
    assert sum(hours[hour] for hour in (4, 5)) > sum(hours.values()) / 3
    ages = [now - at for at in LedgerEntry.objects.values_list("created_at", flat=True)]
    assert max(ages) > timedelta(hours=20)
    for group in FailureGroup.objects.all():
        letters = [one.created_at for one in DeadLetter.objects.filter(group=group)]
        assert (group.first_seen, group.last_seen) == (min(letters), max(letters))
    lines = sparklines(list(FailureGroup.objects.values_list("pk", flat=True)))
    assert sum(map(sum, lines.values())) >= 280


def test_every_payload_is_one_that_its_kind_takes() -> None:
    demo("--tasks", "200", "--failing", "0.5")
    for task in Task.objects.all():
        args = json.loads(TaskPayload.objects.get(task_id=task.pk).body)
        kinds.find(task.kind).args.model_validate(args)
        assert args["model"] in ("gpt-4o-mini", "text-embedding-3-small")
    assert set(Task.objects.values_list("queue", flat=True)) <= set(states.PRIORITIES)
    assert LedgerEntry.objects.filter(cost_nusd__gt=0).exists()
    assert TaskAttempt.objects.filter(traceback__contains="KeyError: 'total_tokens'").exists()


def test_the_same_seed_makes_the_same_failures() -> None:
    found = []
    for _ in range(2):
        demo("--tasks", "100", "--seed", "42")
        found.append(sorted(DeadLetter.objects.values_list("group_id", "attempts")))
        demo("--remove")
    assert found[0] == found[1]


def test_it_is_made_once_unless_more_is_asked_for() -> None:
    demo("--tasks", "50")
    assert "--more" in demo("--tasks", "50", code=1)
    demo("--tasks", "50", "--more")
    assert Task.objects.count() == 100
    assert ApiKey.objects.count() == len(project.KEYS)
    assert broken() == []


def test_a_project_of_somebody_else_is_neither_used_nor_removed(make_task: MakeTask) -> None:
    theirs = Project.objects.create(name="demo")
    task = make_task(project_id=theirs.pk)
    for args in ([], ["--more"], ["--remove"]):
        assert "was not made by this command" in demo(*args, code=1)
    assert list(Task.objects.all()) == [task]


@pytest.mark.django_db(transaction=True)
def test_it_goes_without_a_trace_and_takes_nothing_of_others(make_letter: MakeLetter, django_user_model: Any) -> None:
    others = [make_letter() for _ in range(3)]
    triage.discard(others[0].pk, reason="r")
    tallies.fold()
    before = rows()
    demo("--tasks", "300", "--failing", "0.5")
    tried = plan.create("redrive", query="project:demo code:model_error")
    pacer.tick()
    control.start(tried.pk)
    group = FailureGroup.objects.filter(open_count__gt=0).exclude(pk=others[1].group_id).earliest("first_seen")
    grouping.hold(group.pk)
    assert "Removed: 300 tasks" in demo("--remove")
    assert rows() == before
    assert AuditEntry.objects.filter(action="remove").exists()
    assert broken() == []
    assert "There is no demo" in demo("--remove")


def test_of_a_group_that_it_shares_only_its_part_is_taken(make_task: MakeTask) -> None:
    demo("--tasks", "200", "--failing", "1", "--seed", "3")
    shared = FailureGroup.objects.get(code="upstream_credentials_exhausted")
    key = ApiKey.objects.first()
    assert key is not None
    cause = next(cause for cause in CAUSES if str(cause.upstream) == shared.upstream)
    theirs = Project.objects.create(name="theirs")
    tasks = []
    for _ in range(2):
        tasks.append(make_task(kinds.find("embeddings"), project_id=theirs.pk))
        die(tasks[-1], error=cause.error(Random(1)), upstream=shared.upstream)
    mixed = plan.create("discard", query="code:upstream_credentials_exhausted")
    pacer.tick()
    tallies.fold()
    assert "is about others' letters too" in demo("--remove", code=1)
    control.cancel(mixed.pk)
    demo("--remove")
    shared.refresh_from_db()
    assert (shared.died_count, shared.open_count, shared.key_count, shared.discarded_count) == (2, 2, 0, 0)
    assert [row.died for row in GroupHour.objects.filter(group_id=shared.pk)] == [2]
    assert [row.died for row in GroupKey.objects.all()] == [2]
    assert list(FailureGroup.objects.all()) == [shared]
    assert set(Task.objects.all()) == set(tasks)
    assert BulkItem.objects.count() == BulkOperation.objects.get(pk=mixed.pk).total == 2
    assert not {"I5", "I13", "I14"} & set(broken())  # of the ledger nothing was written for these two


def test_what_a_worker_holds_is_told_to_end_before_it_is_removed() -> None:
    demo("--tasks", "20", "--failing", "0.1")
    task = Task.objects.filter(state="dead").first()
    assert task is not None
    triage.redrive(DeadLetter.objects.get(task_id=task.pk, state="open").pk)
    task.refresh_from_db()
    take(task)
    with pytest.raises(Conflict, match="at work"):
        removal.remove(Project.objects.get(), patience=0.3)
    task.refresh_from_db()
    assert (task.state, task.cancel_requested) == ("running", True)


@pytest.mark.parametrize("args", [["--tasks", "0"], ["--failing", "1.1"], ["--failing", "nan"], ["--tasks", "200001"]])
def test_wrong_usage_makes_nothing(args: list[str]) -> None:
    assert "from " in demo(*args, code=2)
    assert not Project.objects.exists()
