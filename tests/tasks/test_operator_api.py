"""Tasks, queues, workers and the clock over /ops/api/: the same verbs and permissions as in the admin."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.access.models import AuditEntry
from apps.tasks import queues, states
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import QueueState, Task, TaskAttempt, WorkerPresence, shown_id
from tests.tasks.conftest import AsPerson, MakeTask, ending, take
from tests.time import age

pytestmark = pytest.mark.django_db
TASKS, QUEUES = "/ops/api/tasks/", "/ops/api/queues/"
NOBODY = "task_0197f000000070008000000000000000"
LONG_AGO = "2020-01-01T00:00Z"
WORDS = "the secret words of a client"


def at(task: Task, action: str = "") -> str:
    return f"{TASKS}{shown_id(task.pk)}/{action + '/' if action else ''}"


def post(client: Client, url: str, **body: Any) -> Any:
    return client.post(url, body, content_type="application/json")


def test_tasks_are_paged_newest_first_without_a_count(admin_client: Client, make_task: MakeTask) -> None:
    made = [shown_id(make_task().pk) for _ in range(7)]
    found: list[str] = []
    url = f"{TASKS}?limit=3"
    with CaptureQueriesContext(connection) as seen:
        while url:
            page = admin_client.get(url).json()
            found += [row["id"] for row in page["results"]]
            url = page["next"]
    assert found == made[::-1]
    assert not any("COUNT(" in query["sql"] for query in seen)


def test_tasks_are_filtered(admin_client: Client, make_task: MakeTask) -> None:
    task, old = make_task(queue="low"), make_task(queue="high")
    age(old, days=2)
    Task.objects.filter(pk=old.pk).update(state="dead", finished_at=timezone.now())
    yesterday = (timezone.now() - timedelta(days=1)).isoformat()
    for query, expected in (
        ({"state": "dead"}, [old]),
        ({"kind": task.kind}, [task]),
        ({"queue": "high"}, [old]),
        ({"project": str(task.project_id)}, [task]),
        ({"since": yesterday}, [task]),
        ({"until": yesterday}, []),  # found by ids, which cannot be aged
    ):
        found = [row["id"] for row in admin_client.get(TASKS, query).json()["results"]]
        assert found == [shown_id(one.pk) for one in expected], query


def test_one_task_comes_with_its_attempts_and_without_its_texts(admin_client: Client, make_task: MakeTask) -> None:
    task = make_task(args={"input": WORDS}, callback_url="https://h/x?token=s")
    finish([ending(take(task), result='{"content": "words"}')])
    running = make_task()
    take(running)
    response = admin_client.get(at(task))
    found = response.json()
    (attempt,) = found["attempts"]
    assert (found["state"], attempt["number"], attempt["outcome"], found["dead_letter"]) == (
        "succeeded", 1, "succeeded", None,
    )  # fmt: skip
    assert attempt["seconds"] >= 0
    assert found["callback_url"] == "https://h/x?..."
    assert WORDS not in response.content.decode()
    assert [one["outcome"] for one in admin_client.get(at(running)).json()["attempts"]] == ["running"]
    assert TaskAttempt.objects.count() == 1


def test_cancelling_is_the_verb_of_the_admin(admin_client: Client, make_task: MakeTask) -> None:
    waiting, running = make_task(), make_task()
    take(running)
    Task.objects.filter(pk=waiting.pk).update(state="pending", token=None, worker=None, run_until=None, attempt=0)
    response = post(admin_client, at(waiting, "cancel"), reason="sent twice")
    assert (response.status_code, response.json()["state"]) == (200, "cancelled")
    response = post(admin_client, at(running, "cancel"))
    assert (response.status_code, response.json()["cancel_requested"]) == (202, True)
    assert AuditEntry.objects.filter(action="cancel", reason="sent twice").count() == 1
    finish([ending(take(done := make_task()))])
    error = post(admin_client, at(done, "cancel"))
    assert (error.status_code, error.json()["error"]["code"]) == (409, "conflict")


@pytest.mark.parametrize("may", [False, True])
@pytest.mark.parametrize(("action", "permission"), [("cancel", "cancel_task"), ("reveal", "reveal_payload")])
def test_each_action_needs_its_own_permission(
    as_person: AsPerson, make_task: MakeTask, action: str, permission: str, may: bool
) -> None:
    task = make_task(args={"input": WORDS})
    client = as_person("view_task", "change_task", "add_task", *([permission] if may else []))
    assert client.get(at(task)).status_code == 200
    assert client.get(at(task, action)).status_code in {403, 405}
    response = post(client, at(task, action), reason="ticket 7")
    assert response.status_code == (200 if may else 403)
    assert AuditEntry.objects.filter(action=action, reason="ticket 7").exists() is may
    assert (WORDS in response.content.decode()) is (may and action == "reveal")
    if not may:
        assert response.json()["error"]["code"] == "permission_denied"


def test_an_action_needs_the_permission_to_look_too(as_person: AsPerson, make_task: MakeTask) -> None:
    client = as_person("cancel_task", "reveal_payload", "pause_queue")
    task = make_task()
    for url in (at(task, "cancel"), at(task, "reveal"), f"{QUEUES}low/pause/"):
        assert post(client, url, reason="r").status_code == 403
    assert not AuditEntry.objects.exists()


def test_a_post_of_a_session_needs_its_token(admin_user: Any, make_task: MakeTask) -> None:
    task, careful = make_task(), Client(enforce_csrf_checks=True)
    careful.force_login(admin_user)
    assert post(careful, at(task, "cancel")).status_code == 403
    assert Task.objects.get(pk=task.pk).state == "pending"


def test_queues_are_listed_paused_and_resumed(admin_client: Client, make_task: MakeTask) -> None:
    make_task(queue="low")
    assert [row["name"] for row in admin_client.get(QUEUES).json()] == list(states.QUEUES)
    until = timezone.now() + timedelta(hours=1)
    paused = post(admin_client, f"{QUEUES}low/pause/", reason="receiver is down", resume_at=until.isoformat()).json()
    assert (paused["paused"], paused["reason"], paused["due"], paused["paused_by"]) == (
        True, "receiver is down", 1, "admin",
    )  # fmt: skip
    assert post(admin_client, f"{QUEUES}low/resume/").json()["paused"] is False
    assert post(admin_client, f"{QUEUES}low/resume/").status_code == 409
    assert set(AuditEntry.objects.values_list("action", flat=True)) == {"pause", "resume"}


@pytest.mark.parametrize("may", [False, True])
def test_pausing_needs_its_permission(as_person: AsPerson, may: bool) -> None:
    client = as_person("view_queuestate", "change_queuestate", *(["pause_queue"] if may else []))
    assert post(client, f"{QUEUES}low/pause/", reason="r").status_code == (200 if may else 403)
    assert [one.name for one in queues.overview() if one.is_paused] == (["low"] if may else [])


def test_workers_and_the_clock_are_listed(admin_client: Client) -> None:
    WorkerPresence.objects.create(
        id=uuid4(), lock_key=1, host="node-7", pid=42, queues="high,low", slots=9, in_flight=3,
        expires_at=timezone.now() + timedelta(seconds=10),
    )  # fmt: skip
    (worker,) = admin_client.get("/ops/api/workers/").json()
    assert (worker["host"], worker["state"], worker["queues"], worker["in_flight"]) == (
        "node-7", "working", ["high", "low"], 3,
    )  # fmt: skip
    chores = admin_client.get("/ops/api/clock/").json()
    assert {chore["name"]: chore["state"] for chore in chores}["reap"] == "never"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "param"),
    [
        ("get", f"{TASKS}task_nonsense/", None, 404, "not_found", None),
        ("get", f"{TASKS}{NOBODY}/", None, 404, "not_found", None),
        ("post", f"{TASKS}{NOBODY}/cancel/", {}, 404, "not_found", None),
        ("post", f"{TASKS}{NOBODY}/reveal/", {"unknown": 1}, 400, "validation_error", "unknown"),
        ("get", f"{TASKS}?state=nonsense", None, 400, "validation_error", "state"),
        ("get", f"{TASKS}?queue=nonsense", None, 400, "validation_error", "queue"),
        ("get", f"{TASKS}?project=nonsense", None, 400, "validation_error", "project"),
        ("get", f"{TASKS}?since=nonsense", None, 400, "validation_error", "since"),
        ("get", f"{TASKS}?cursor=cD1ub25zZW5zZQ==", None, 404, "not_found", None),
        ("post", TASKS, {}, 405, "method_not_allowed", None),
        ("delete", f"{TASKS}{NOBODY}/", None, 405, "method_not_allowed", None),
        ("post", f"{QUEUES}nonsense/pause/", {"reason": "r"}, 404, "not_found", "queue"),
        ("post", f"{QUEUES}low/pause/", {}, 400, "validation_error", "reason"),
        ("post", f"{QUEUES}low/pause/", {"reason": "r", "resume_at": LONG_AGO}, 400, "validation_error", "resume_at"),
        ("post", f"{QUEUES}low/pause/", {"reason": "r", "until": "x"}, 400, "validation_error", "until"),
        ("post", f"{QUEUES}low/pause/", {"reason": "a\0b"}, 400, "validation_error", "reason"),
        ("post", f"{QUEUES}low/pause/", [], 400, "validation_error", None),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_the_one_body(
    admin_client: Client, method: str, path: str, body: Any, status: int, code: str, param: str | None
) -> None:
    options = {} if body is None else {"data": body, "content_type": "application/json"}
    response = getattr(admin_client, method)(path, **options)
    assert response.status_code == status, response.content
    error = response.json()["error"]
    assert error["code"] == code
    assert error.keys() == {"message", "type", "param", "code", "request_id", "details"}
    if param:
        assert error["param"] == param
    assert not QueueState.objects.exists()
