"""What is told of a task's end: written in the transaction of that end, once, whatever the task's texts hold."""

import json
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, transaction

from apps.access.models import Project
from apps.dead_letters import triage
from apps.dead_letters.models import DeadLetter
from apps.tasks import kinds, queries
from apps.tasks.enqueue import NewTask, insert
from apps.tasks.lifecycle.cancel import cancel
from apps.tasks.lifecycle.claim import Claimed, claim
from apps.tasks.lifecycle.expire import expire
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import Task, TaskResult
from apps.tasks.signals import Finished
from apps.tasks.verify import verify
from apps.webhooks import announce, disabled
from apps.webhooks.models import WebhookEvent
from tests.tasks.conftest import MakeKind, MakeTask, ending, take
from tests.time import age
from tests.webhooks.conftest import End, MakeProject, body_of, event_of, failure

pytestmark = pytest.mark.django_db
URL = "https://hooks.example/redrive"


def broken(name: str) -> int:
    """How many rows break an invariant."""
    return next(count for invariant, count, _ in verify() if invariant.name == name)


def finished(task: Task) -> Finished:
    """The news of a task's end."""
    return Finished(task.pk, task.project_id, task.kind, task.state, task.callback_url, task.parent_id, task.cycle)


def test_a_task_that_succeeded_is_told_with_its_status(make_project: MakeProject, end: End) -> None:
    project, _ = make_project()
    task = end(project, URL, metadata='{"order":"7"}')
    event, body = event_of(task), body_of(task)
    assert body.keys() == {"id", "object", "type", "created_at", "data"}
    assert (body["id"], body["object"], body["type"]) == (f"evt_{event.pk.hex}", "event", "task.succeeded")
    assert body["created_at"] == int(task.finished_at.timestamp())  # type: ignore[union-attr]
    assert body["data"] == queries.one(project.pk, task.pk)
    assert body["data"]["result"] == {"answer": 42}
    delivery = Task.objects.get(pk=event.delivery_id)
    assert (delivery.kind, delivery.queue, delivery.state) == ("webhook_delivery", "webhooks", "pending")
    assert (delivery.deadline, delivery.callback_url, delivery.request_id) == (None, "", "req_1")
    assert broken("I8") == 0


def test_a_task_that_died_is_told_with_its_error_and_its_letter(make_project: MakeProject, end: End) -> None:
    body = body_of(end(make_project()[0], URL, "dead"))
    assert (body["type"], body["data"]["status"]) == ("task.dead", "dead")
    assert body["data"]["error"]["code"] == "content_filtered"
    assert body["data"]["dead_letter"]["state"] == "open"


def test_a_cancelled_and_a_late_task_are_told(make_project: MakeProject, make_task: MakeTask) -> None:
    project, _ = make_project()
    cancelled = make_task(project_id=project.pk, callback_url=URL)
    cancel(cancelled.pk)
    late = make_task(project_id=project.pk, callback_url=URL, deadline=60.0)
    age(late, minutes=2)
    expire()
    for task, type_ in ((cancelled, "task.cancelled"), (late, "task.dead")):
        task.refresh_from_db()
        assert body_of(task)["type"] == type_


def test_each_cycle_has_an_event_of_its_own(make_project: MakeProject, end: End) -> None:
    task = end(make_project()[0], URL, "dead")
    first = event_of(task)
    triage.redrive(DeadLetter.objects.get(task_id=task.pk).pk)
    task.refresh_from_db()
    finish([ending(take(task))])
    task.refresh_from_db()
    assert body_of(task)["type"] == "task.succeeded"
    assert event_of(task).pk != first.pk


def test_what_nobody_asked_to_hear_of_is_not_told(make_project: MakeProject, make_kind: MakeKind, end: End) -> None:
    project, _ = make_project()
    end(project, "")
    end(project, URL, parent_id=uuid4(), item_index=0)
    silent = make_kind(announce=False)
    new = NewTask(project.pk, silent, "{}", callback_url=URL)
    insert([new])
    finish([ending(take(Task.objects.get(pk=new.id)))])
    delivery = Task.objects.get(pk=event_of(end(project, URL)).delivery_id)
    finish([ending(take(delivery))])
    assert WebhookEvent.objects.count() == 1


def test_a_kind_that_is_no_longer_known_is_told(make_project: MakeProject, end: End) -> None:
    task = end(make_project()[0], URL)
    WebhookEvent.objects.all().delete()
    kinds._kinds.pop(task.kind)
    announce.receive(tasks=[finished(task)])
    assert event_of(task)


def test_the_same_news_twice_makes_one_event_and_one_delivery(make_project: MakeProject, end: End) -> None:
    task = end(make_project()[0], URL)
    before = event_of(task)
    announce.receive(tasks=[finished(task)])
    assert event_of(task).body == before.body
    assert Task.objects.filter(kind="webhook_delivery").count() == 1


def test_without_the_end_there_is_no_event(make_project: MakeProject, make_task: MakeTask) -> None:
    task = make_task(project_id=make_project()[0].pk, callback_url=URL)
    claimed = take(task)

    class Undone(Exception):
        pass

    with pytest.raises(Undone), transaction.atomic():
        finish([ending(claimed)])
        assert WebhookEvent.objects.count() == 1
        raise Undone
    assert not WebhookEvent.objects.exists()
    assert not Task.objects.filter(kind="webhook_delivery").exists()


def claimed_of(new: list[NewTask]) -> list[Claimed]:
    """Their leases, in the same order."""
    found = {one.id: one for one in claim("default", uuid4(), 1000, limits={})}
    return [found[one.id] for one in new]


def deep(levels: int) -> str:
    """JSON that is nested so deeply."""
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (
            json.dumps({"content": "a\0b \ud800 \u202e \N{PILE OF POO}"}),
            {"content": "a\0b \ud800 \u202e \N{PILE OF POO}"},
        ),
        (deep(100_000), None),
        (deep(990), None),
        ("not JSON", None),
        (f'{{"n": {"9" * 5000}}}', None),
        (json.dumps({"vectors": "x" * announce.LARGEST}), None),
    ],
    ids=["NUL and surrogates", "very deep", "deep", "no JSON", "huge number", "large"],
)
def test_whatever_the_result_holds_the_task_ends_and_its_neighbours_are_told(
    make_project: MakeProject, make_kind: MakeKind, result: str, expected: Any
) -> None:
    project, _ = make_project()
    new = [NewTask(project.pk, make_kind(), "{}", callback_url=URL) for _ in range(3)]
    insert(new)
    claimed = claimed_of(new)
    results = ['{"fine": 1}', result, '{"fine": 2}']
    states = finish([ending(one, result=text) for one, text in zip(claimed, results, strict=True)])
    assert states == ["succeeded"] * 3
    first, second, third = (body_of(Task.objects.get(pk=one.id))["data"] for one in new)
    assert (first["result"], third["result"]) == ({"fine": 1}, {"fine": 2})
    assert second["result"] == expected
    assert second.get("result_omitted", False) is (expected is None)
    assert (second["status"], second["task_id"]) == ("succeeded", f"task_{new[1].id.hex}")
    assert TaskResult.objects.get(pk=new[1].id).body == result
    event = event_of(Task.objects.get(pk=new[1].id))
    assert event.body.isascii()
    assert len(event.body) <= announce.LARGEST


def test_many_that_end_at_once_are_told_each(make_project: MakeProject, make_kind: MakeKind) -> None:
    project, kind = make_project()[0], make_kind()
    new = [NewTask(project.pk, kind, "{}", callback_url=URL) for _ in range(250)]
    insert(new)
    finish([ending(one) for one in claimed_of(new)])
    assert WebhookEvent.objects.count() == 250
    assert Task.objects.filter(kind="webhook_delivery").count() == 250
    assert broken("I8") == 0


def test_of_a_disabled_url_the_event_is_kept_and_held(make_project: MakeProject, end: End) -> None:
    project, _ = make_project()
    disabled.disable(project.pk, URL)
    disabled.disable(project.pk, URL)
    held = event_of(end(project, URL))
    assert (held.held, held.delivery_id) == (True, None)
    other = event_of(end(make_project()[0], URL))
    assert (other.held, other.delivery_id is None) == (False, False)
    assert broken("I8") == 0


def test_the_invariant_sees_an_end_that_was_not_told_and_an_event_that_nobody_delivers(
    make_project: MakeProject, end: End
) -> None:
    project, _ = make_project()
    lost, undelivered = end(project, URL), end(project, URL)
    event_of(lost).delete()
    assert broken("I8") == 1
    Task.objects.filter(pk=event_of(undelivered).delivery_id).delete()
    assert broken("I8") == 2
    WebhookEvent.objects.filter(task_id=undelivered.pk).update(held=True)
    assert broken("I8") == 1


def test_deliveries_are_not_among_a_clients_tasks_unless_asked_for(make_project: MakeProject, end: End) -> None:
    project, _ = make_project()
    task = end(project, URL)

    def listed(**filters: Any) -> list[str]:
        found = queries.page(project.pk, queries.Filters(**filters), after=None, limit=10)
        return [one["task_id"] for one in found["data"]]

    assert listed() == [f"task_{task.pk.hex}"]
    assert listed(kind="webhook_delivery") == [f"task_{event_of(task).delivery_id.hex}"]  # type: ignore[union-attr]


def test_a_redriven_delivery_goes_back_to_its_own_queue(make_project: MakeProject, end: End) -> None:
    delivery = Task.objects.get(pk=event_of(end(make_project()[0], URL)).delivery_id)
    finish([ending(take(delivery), "dead", "failed", failure=failure(), charged=True)])
    triage.redrive(DeadLetter.objects.get(task_id=delivery.pk).pk)
    delivery.refresh_from_db()
    assert (delivery.state, delivery.queue, delivery.deadline) == ("pending", "webhooks", None)


def test_a_batch_without_callbacks_asks_postgres_nothing(
    make_project: MakeProject, end: End, django_assert_num_queries: Any
) -> None:
    task = end(make_project()[0], "")
    with django_assert_num_queries(0):
        announce.receive(tasks=[finished(task)] * 100)


def test_projects_that_are_gone_are_no_trouble(end: End, db: None) -> None:
    gone = Project(name="gone")
    assert event_of(end(gone, URL)).project_id == gone.pk
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
