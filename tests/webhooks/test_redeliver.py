"""Sending an event again: the same id and bytes, one delivery at a time, whoever asks how often."""

from uuid import uuid4

import pytest

from apps.access import idempotency
from apps.access.errors import IdempotencyKeyReused
from apps.core.errors import NotFound
from apps.tasks.executor import Executor
from apps.tasks.models import Task
from apps.tasks.verify import verify
from apps.webhooks import disabled, secrets
from apps.webhooks.errors import EventNotFound, NoSecret, UrlIsDisabled
from apps.webhooks.models import WebhookEvent
from apps.webhooks.redeliver import redeliver, redeliver_of_task
from tests.races import together
from tests.receiver import Receiver, says
from tests.webhooks.conftest import End, MakeProject, delivered, event_of, on_db, tries

pytestmark = pytest.mark.django_db
URL = "http://127.0.0.2:1/"


def deliveries() -> list[Task]:
    return list(Task.objects.filter(kind="webhook_delivery").order_by("id"))


async def test_a_delivered_event_is_sent_again_with_the_same_id_and_bytes(
    worker: Executor, receiver: Receiver, make_project: MakeProject, end: End
) -> None:
    url = receiver.url()
    project, _ = await on_db(make_project)()
    task = await on_db(end)(project, url)
    await delivered(worker, task, "succeeded")
    await on_db(redeliver_of_task)(project.pk, task.pk)
    await delivered(worker, task, "succeeded")
    first, second = receiver.arrived(url)
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)
    assert len(await on_db(tries)(task)) == 2


async def test_one_that_waits_for_its_next_try_is_replaced(
    worker: Executor, receiver: Receiver, make_project: MakeProject, end: End
) -> None:
    url = receiver.url(says(500), says(200))
    project, _ = await on_db(make_project)()
    task = await on_db(end)(project, url)
    waiting = await delivered(worker, task, "retrying")
    await on_db(redeliver_of_task)(project.pk, task.pk)
    done = await delivered(worker, task, "succeeded")
    assert done.pk != waiting.pk
    assert [one.state for one in await on_db(deliveries)()] == ["cancelled", "succeeded"]
    assert all(count == 0 for _, count, _ in await on_db(verify)())


def test_one_that_is_on_its_way_stays_the_only_one(make_project: MakeProject, end: End) -> None:
    project, _ = make_project()
    task = end(project, URL)
    before = event_of(task).delivery_id
    assert redeliver_of_task(project.pk, task.pk).delivery_id == before
    assert len(deliveries()) == 1


@pytest.mark.django_db(transaction=True)
def test_of_eight_who_ask_at_once_one_delivery_comes(make_project: MakeProject, end: End) -> None:
    project, _ = make_project()
    task = end(project, URL)
    Task.objects.filter(pk=event_of(task).delivery_id).update(state="retrying")
    results = together(8, lambda _: redeliver_of_task(project.pk, task.pk).delivery_id)
    assert len(set(results)) == 1
    assert sorted(one.state for one in deliveries()) == ["cancelled", "pending"]


def test_a_held_event_is_sent_once_its_url_is_enabled(make_project: MakeProject, end: End) -> None:
    project, _ = make_project()
    disabled.disable(project.pk, URL)
    task = end(project, URL)
    with pytest.raises(UrlIsDisabled):
        redeliver_of_task(project.pk, task.pk)
    disabled.enable(row=project.disabledurl_set.get())  # type: ignore[attr-defined]
    event = redeliver_of_task(project.pk, task.pk)
    assert (event.held, [one.pk for one in deliveries()]) == (False, [event.delivery_id])
    event.refresh_from_db()
    assert not event.held


def test_an_idempotency_key_counts(make_project: MakeProject, end: End) -> None:
    project, _ = make_project()
    task = end(project, URL)

    def ask(digest: str = "a" * 64) -> WebhookEvent:
        Task.objects.filter(kind="webhook_delivery", state="pending").update(state="retrying")
        return redeliver_of_task(
            project.pk, task.pk, claim=idempotency.Claim(project.pk, "webhook_redeliver", "key-1", digest)
        )

    assert ask().delivery_id == ask().delivery_id
    assert len(deliveries()) == 2
    with pytest.raises(IdempotencyKeyReused):
        ask("b" * 64)
    assert next(count for invariant, count, _ in verify() if invariant.name == "I2") == 0


def test_what_is_not_there_or_not_possible(make_project: MakeProject, end: End) -> None:
    (project, _), (other, _) = make_project(), make_project()
    task, untold = end(project, URL), end(project, "")
    for bad in ((other.pk, task.pk), (project.pk, uuid4()), (project.pk, untold.pk)):
        with pytest.raises(NotFound):
            redeliver_of_task(*bad)
    foreign = event_of(end(other, URL))
    with pytest.raises(EventNotFound):
        redeliver_of_task(project.pk, task.pk, event_id=foreign.pk)
    with pytest.raises(EventNotFound):
        redeliver(uuid4())
    secrets.revoke(project=project)
    with pytest.raises(NoSecret):
        redeliver_of_task(project.pk, task.pk)
