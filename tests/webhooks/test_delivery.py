"""Deliveries by a real worker to a real receiver: what is success, what is tried again and when, and what ends it."""

import json
import threading

import pytest
from django.db import connection
from standardwebhooks import Webhook

from apps.core.errors import ServiceUnavailable
from apps.dead_letters.models import DeadLetter
from apps.tasks import retry_policy
from apps.tasks.executor import Executor
from apps.tasks.models import Task, TaskResult
from apps.tasks.retry_policy import History
from apps.tasks.verify import verify
from apps.webhooks import delivery, disabled, secrets
from apps.webhooks.errors import DeliveryFailed
from apps.webhooks.models import DisabledUrl, WebhookEvent
from tests.receiver import Receiver, closed_port, says, sends, waits
from tests.time import age
from tests.webhooks.conftest import End, MakeProject, delivered, event_of, on_db, tries

pytestmark = pytest.mark.django_db(transaction=True)
HOUR = 3600.0


async def test_an_event_arrives_signed_and_is_logged(
    worker: Executor, receiver: Receiver, make_project: MakeProject, end: End
) -> None:
    url = receiver.url(says(200, b"thanks"))
    project, secret = await on_db(make_project)()
    task = await on_db(end)(project, url)
    await delivered(worker, task, "succeeded")
    event = await on_db(event_of)(task)
    [request] = receiver.arrived(url)
    assert request.body == event.body.encode()
    assert Webhook(secret).verify(request.body, dict(request.headers))["type"] == "task.succeeded"
    assert request.headers["webhook-id"] == f"evt_{event.pk.hex}"
    assert (request.headers["content-type"], request.headers["x-request-id"]) == ("application/json", "req_1")
    [row] = await on_db(tries)(task)
    assert (row.status_code, row.response, row.error, row.number, row.url) == (200, "thanks", "", 1, url)
    assert event.delivered_at is not None
    assert row.duration_ms < 5000


def test_the_delays_are_those_that_are_promised() -> None:
    policy = delivery.KIND.policy
    waited = []
    for failures in range(9):
        decision = retry_policy.decide(
            DeliveryFailed(answered=404), History(failures + 1, failures, 0), policy, jitter=lambda low, high: 1.0
        )
        assert (decision.state, decision.charged) == ("retrying", True)
        waited.append(decision.delay)
    assert waited == [5, 300, 1800, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR]
    jittered = {retry_policy.decide(DeliveryFailed(), History(2, 1, 0), policy).delay for _ in range(20)}
    assert len(jittered) > 1
    assert all(270 <= delay <= 330 for delay in jittered)
    last = retry_policy.decide(DeliveryFailed(), History(10, 9, 0), policy)
    assert last.state == "dead"


def test_postgres_away_costs_a_delivery_no_try() -> None:
    for attempt in (1, 500):
        decision = retry_policy.decide(
            ServiceUnavailable(retry_after=5), History(attempt, 9, 0, parked_for=24 * HOUR), delivery.KIND.policy
        )
        assert (decision.state, decision.charged) == ("retrying", False)


REFUSALS = [
    (says(400), 400, "http_status"), (says(401), 401, "http_status"), (says(404), 404, "http_status"),
    (says(422), 422, "http_status"), (says(429, **{"Retry-After": "99999"}), 429, "http_status"),
    (says(500), 500, "http_status"), (says(503, **{"Retry-After": "1"}), 503, "http_status"),
    (says(302, location="http://169.254.169.254/latest/"), 302, "redirect"), (says(304), 304, "redirect"),
    (sends(b"nonsense\r\n\r\n"), None, "protocol"), (sends(b""), None, "connect"),
]  # fmt: skip


async def test_whatever_else_is_answered_is_tried_again_after_the_delays(
    worker: Executor, receiver: Receiver, make_project: MakeProject, end: End
) -> None:
    project, _ = await on_db(make_project)()
    urls = [receiver.url(answer) for answer, _, _ in REFUSALS]
    tasks = [await on_db(end)(project, url) for url in urls]
    for task, url, (_, status, error) in zip(tasks, urls, REFUSALS, strict=True):
        waiting = await delivered(worker, task, "retrying", "dead", "succeeded")
        assert (waiting.state, waiting.charged_failures) == ("retrying", 1), error
        assert 3 < (waiting.next_attempt_at - waiting.attempt_started_at).total_seconds() < 9  # type: ignore[operator]
        [row] = await on_db(tries)(task)
        assert (row.status_code, row.error) == (status, error)
        assert len(receiver.arrived(url)) == 1
        assert (await on_db(event_of)(task)).delivered_at is None


async def test_a_receiver_that_was_down_for_hours_gets_the_same_event_in_the_end(
    worker: Executor, receiver: Receiver, make_project: MakeProject, end: End
) -> None:
    url = receiver.url(*[says(503)] * 6, says(200))
    project, old = await on_db(make_project)()
    task = await on_db(end)(project, url)
    for attempt, hours in enumerate((0.01, 0.1, 1, 3, 6, 12), start=1):
        waiting = await delivered(worker, task, "retrying", attempts=attempt)
        assert waiting.charged_failures == attempt
        if attempt == 5:
            new = await on_db(secrets.rotate)(project=project)
        await on_db(age)(waiting, hours=hours)
    done = await delivered(worker, task, "succeeded", attempts=7)
    assert done.attempt == 7
    arrived = receiver.arrived(url)
    assert len({(request.headers["webhook-id"], request.body) for request in arrived}) == 1
    for request in arrived[:5]:
        Webhook(old).verify(request.body, dict(request.headers))
    for request in arrived[5:]:
        assert len(request.headers["webhook-signature"].split()) == 2
        for secret in (old, new):
            Webhook(secret).verify(request.body, dict(request.headers))
    assert [row.status_code for row in await on_db(tries)(task)] == [503] * 6 + [200]


async def test_after_the_last_delay_it_is_a_dead_letter(
    worker: Executor, receiver: Receiver, make_project: MakeProject, end: End
) -> None:
    url = receiver.url(says(500))
    task = await on_db(end)((await on_db(make_project)())[0], url)
    await delivered(worker, task, "retrying")
    event = await on_db(event_of)(task)

    def nine_failures() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE tasks_task SET charged_failures = 9, next_attempt_at = now() WHERE id = %s", [event.delivery_id]
            )

    await on_db(nine_failures)()
    dead = await delivered(worker, task, "dead")
    assert json.loads(dead.error)["code"] == "webhook_failed"
    letter = await on_db(DeadLetter.objects.select_related("group").get)(task_id=dead.pk)
    assert (letter.state, letter.group.code) == ("open", "webhook_failed")
    assert url not in letter.group.message
    assert await on_db(WebhookEvent.objects.count)() == 1  # nobody is told of a delivery's death
    assert await on_db(broken)("I5") == await on_db(broken)("I8") == 0


def broken(name: str) -> int:
    return next(count for invariant, count, _ in verify() if invariant.name == name)


async def test_410_disables_the_url_of_that_project_and_ends_the_delivery(
    worker: Executor, receiver: Receiver, make_project: MakeProject, end: End
) -> None:
    url = receiver.url(says(410), says(200))
    project, _ = await on_db(make_project)()
    task = await on_db(end)(project, url)
    done = await delivered(worker, task, "succeeded")
    result = await on_db(TaskResult.objects.get)(pk=done.pk)
    assert json.loads(result.body)["status"] == "url_disabled"
    assert [(row.status_code, row.error) for row in await on_db(tries)(task)] == [(410, "gone")]
    assert await on_db(DisabledUrl.objects.filter(project=project, url=url).count)() == 1
    assert (await on_db(event_of)(await on_db(end)(project, url))).held
    other = await on_db(end)((await on_db(make_project)())[0], url)
    await delivered(worker, other, "succeeded")
    assert len(receiver.arrived(url)) == 2
    assert await on_db(broken)("I8") == 0


async def test_what_waited_when_its_url_was_disabled_is_not_sent(
    worker: Executor, receiver: Receiver, make_project: MakeProject, end: End
) -> None:
    url = receiver.url(says(500))
    project, _ = await on_db(make_project)()
    task = await on_db(end)(project, url)
    waiting = await delivered(worker, task, "retrying")
    await on_db(disabled.disable)(project.pk, url)
    await on_db(age)(waiting, hours=1)
    await delivered(worker, task, "succeeded")
    assert len(receiver.arrived(url)) == 1


async def test_where_no_call_is_possible_it_is_logged_and_tried_again(
    worker: Executor, make_project: MakeProject, end: End
) -> None:
    cases = {
        "http://127.0.0.1:9/": "address_refused",
        "http://169.254.169.254/latest/meta-data/": "address_refused",
        "http://[::ffff:127.0.0.1]/": "address_refused",
        "http://2130706433/": "address_refused",
        "ftp://hooks.example/": "address_refused",
        f"http://127.0.0.2:{closed_port()}/": "connect",
    }
    project, _ = await on_db(make_project)()
    tasks = {url: await on_db(end)(project, url) for url in cases}
    for url, error in cases.items():
        task = tasks[url]
        await delivered(worker, task, "retrying")
        [row] = await on_db(tries)(task)
        assert (row.error, row.status_code, row.response) == (error, None, "")
        assert row.message


async def test_a_project_whose_secret_was_revoked_gets_it_when_there_is_a_new_one(
    worker: Executor, receiver: Receiver, make_project: MakeProject, end: End
) -> None:
    url = receiver.url()
    project, _ = await on_db(make_project)()
    await on_db(secrets.revoke)(project=project)
    task = await on_db(end)(project, url)
    waiting = await delivered(worker, task, "retrying")
    assert [row.error for row in await on_db(tries)(task)] == ["no_secret"]
    assert receiver.arrived(url) == []
    _, secret = await on_db(secrets.create)(project=project)
    await on_db(age)(waiting, hours=1)
    await delivered(worker, task, "succeeded")
    [request] = receiver.arrived(url)
    assert Webhook(secret).verify(request.body, dict(request.headers))


async def test_a_secret_that_cannot_be_decrypted_spoils_no_delivery(
    worker: Executor, receiver: Receiver, make_project: MakeProject, end: End
) -> None:
    project, _ = await on_db(make_project)()

    def spoil() -> None:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE webhooks_webhooksecret SET secret = 'nonsense' WHERE project_id = %s", [project.pk])

    await on_db(spoil)()
    task = await on_db(end)(project, receiver.url())
    await delivered(worker, task, "retrying")
    assert [row.error for row in await on_db(tries)(task)] == ["internal"]


async def test_a_fault_of_ours_in_postgres_is_tried_again(
    worker: Executor, receiver: Receiver, make_project: MakeProject, end: End
) -> None:
    url = receiver.url()

    def rename(old: str, new: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")

    task = await on_db(end)((await on_db(make_project)())[0], "http://127.0.0.1/")
    waiting = await delivered(worker, task, "retrying")
    await on_db(rename)("webhooks_webhooksecret", "hidden")
    try:
        await on_db(WebhookEvent.objects.filter(task_id=task.pk).update)(url=url)
        await on_db(age)(waiting, hours=1)
        waiting = await delivered(worker, task, "retrying", "dead", attempts=2)
        assert (waiting.state, waiting.charged_failures) == ("retrying", 2)
    finally:
        await on_db(rename)("hidden", "webhooks_webhooksecret")
    await on_db(age)(waiting, hours=1)
    await delivered(worker, task, "succeeded")
    assert len(receiver.arrived(url)) == 1


async def test_an_answer_with_nul_and_surrogates_is_logged(
    worker: Executor, receiver: Receiver, make_project: MakeProject, end: End
) -> None:
    task = await on_db(end)(
        (await on_db(make_project)())[0], receiver.url(says(200, b"a\0\xed\xa0\x80" + b"\xff" * 9999))
    )
    await delivered(worker, task, "succeeded")
    [row] = await on_db(tries)(task)
    assert row.response.startswith("a\ufffd")
    assert 2000 < len(row.response) <= 2048


async def test_receivers_that_hang_hold_up_nobody_else(
    worker: Executor, receiver: Receiver, make_project: MakeProject, end: End
) -> None:
    done = threading.Event()
    project, _ = await on_db(make_project)()
    for _ in range(10):
        await on_db(end)(project, receiver.url(waits(done)))
    quick = await on_db(end)(project, receiver.url())
    await delivered(worker, quick, "succeeded", within=5)
    done.set()


async def test_an_event_that_retention_has_deleted_ends_its_delivery(
    worker: Executor, receiver: Receiver, make_project: MakeProject, end: End
) -> None:
    url = receiver.url(says(500))
    task = await on_db(end)((await on_db(make_project)())[0], url)
    waiting = await delivered(worker, task, "retrying")
    await on_db(WebhookEvent.objects.all().delete)()
    await on_db(age)(waiting, hours=1)
    found = waiting
    while found.state != "dead":
        worker.wake(["webhooks"])
        found = await on_db(Task.objects.get)(pk=waiting.pk)
    assert json.loads(found.error)["code"] == "not_found"
