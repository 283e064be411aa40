"""The admin of tasks, queues and workers: what each person sees and may do."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from apps.access.models import AuditEntry, Project
from apps.dead_letters.models import DeadLetter, FailureGroup
from apps.tasks import kinds, queues
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import ClockBeat, QueueState, RetryPolicy, Task, TaskAttempt, WorkerPresence
from tests.conftest import MakeKey
from tests.tasks.conftest import AsPerson, MakeTask, ending, take
from tests.time import age

pytestmark = pytest.mark.django_db
LIST = reverse("admin:tasks_task_changelist")
QUEUES = reverse("admin:tasks_queuestate_changelist")
WORKERS = reverse("admin:tasks_workerpresence_changelist")
WORDS = "the secret words of a client"
VIEWS = ("view_task", "view_queuestate", "view_workerpresence")


def page_of(task: Task, action: str = "change") -> str:
    return reverse(f"admin:tasks_task_{action}", args=[task.pk])


def ids_on(response: Any) -> list[Any]:
    return [row.pk for row in response.context["cl"].result_list]


@pytest.fixture
def died(make_task: MakeTask, make_key: MakeKey) -> Task:
    """A dead task with two attempts, a payload, a result and its letter."""
    key, _ = make_key()
    task = make_task(args={"model": "m/x", "input": WORDS}, project_id=key.project_id, api_key_id=key.pk)
    now = timezone.now()
    for number in (1, 2):
        TaskAttempt.objects.create(
            task_id=task.pk, number=number, cycle=1, token=number, worker=uuid4(), started_at=now, outcome="failed",
            charged=True, error_code="model_error", error_status=503, error_message="overloaded <b>",
            traceback="Traceback <script>", upstream="openai/m", input_tokens=7, cost_nusd=1_500_000,
        )  # fmt: skip
    Task.objects.filter(pk=task.pk).update(state="dead", finished_at=now, attempt=2, callback_url="https://h/x?t=s")
    group = FailureGroup.objects.create(fingerprint="f", kind="k", queue="q", code="model_error", message="overloaded")
    DeadLetter.objects.create(
        task_id=task.pk, cycle=1, group=group, project_id=key.project_id, kind="k", queue="q", code="c", attempts=2
    )
    task.refresh_from_db()
    return task


def test_pages_hold_every_task_once_newest_first_without_a_count(admin_client: Client, make_task: MakeTask) -> None:
    kind = make_task().kind
    for _ in range(119):
        make_task(kinds.find(kind))
    expected = list(Task.objects.order_by("-id").values_list("pk", flat=True))
    found, url = [], LIST
    while True:
        with CaptureQueriesContext(connection) as seen:
            response = admin_client.get(url)
        found.append(ids_on(response))
        assert len(seen) <= 15
        assert not any("COUNT(" in query["sql"] for query in seen)
        if not response.context["cl"].older_url:
            break
        url = LIST + response.context["cl"].older_url
    assert [len(page) for page in found] == [50, 50, 20]
    assert [pk for page in found for pk in page] == expected
    newer = admin_client.get(LIST + response.context["cl"].newer_url)
    assert ids_on(newer) == found[1]


def test_a_page_that_was_never_given_is_refused(admin_client: Client) -> None:
    assert admin_client.get(LIST, {"older": "nonsense"}).status_code == 302


def test_the_list_is_narrowed_by_state_kind_queue_project_and_day(admin_client: Client, make_task: MakeTask) -> None:
    project = Project.objects.create(name="mine")
    task = make_task(queue="low", project_id=project.pk)
    other = make_task(queue="high")
    Task.objects.filter(pk=other.pk).update(state="cancelled", finished_at=timezone.now())
    today = f"{timezone.now():%Y-%m-%d}"
    long_ago = f"{timezone.now() - timedelta(days=9):%Y-%m-%d}"
    for query, expected in (
        ({"state__exact": "cancelled"}, [other.pk]),
        ({"kind": task.kind}, [task.pk]),
        ({"queue": "high"}, [other.pk]),
        ({"project__id__exact": str(project.pk)}, [task.pk]),
        ({"created_at_from": today}, [other.pk, task.pk]),
        ({"created_at_to": long_ago}, []),
        ({"q": f"task_{task.pk.hex}"}, [task.pk]),
        ({"q": str(other.pk)}, [other.pk]),
        ({"q": "nothing-of-this-name"}, []),
    ):
        assert ids_on(admin_client.get(LIST, query)) == expected, query


def test_a_task_is_found_by_its_request_for_a_day(admin_client: Client, make_task: MakeTask) -> None:
    task = make_task(request_id="req_1")
    assert ids_on(admin_client.get(LIST, {"q": "req_1"})) == [task.pk]
    age(task, hours=30)
    assert ids_on(admin_client.get(LIST, {"q": "req_1"})) == []


def test_the_page_tells_all_that_was_tried_and_masks_the_texts(admin_client: Client, died: Task) -> None:
    with CaptureQueriesContext(connection) as seen:
        html = admin_client.get(page_of(died)).content.decode()
    assert len(seen) <= 20
    for shown in (
        "overloaded &lt;b&gt;", "Traceback &lt;script&gt;", "openai/m", "$0.001500", "7 / 0", "m/x", "https://h/x?...",
        reverse("admin:dead_letters_deadletter_change", args=[DeadLetter.objects.get().pk]), "(28 characters)",
    ):  # fmt: skip
        assert shown in html, shown
    assert WORDS not in html
    assert page_of(died, "cancel_task") not in html


def test_a_running_attempt_is_the_last_line(admin_client: Client, make_task: MakeTask) -> None:
    task = make_task()
    worker = WorkerPresence.objects.create(
        id=uuid4(), lock_key=1, host="node-7", pid=42, queues="default", slots=1, expires_at=timezone.now()
    )
    take(task, worker.pk)
    html = admin_client.get(page_of(task)).content.decode()
    assert "rd-running" in html
    assert "node-7:42" in html
    own = admin_client.get(reverse("admin:tasks_workerpresence_change", args=[worker.pk])).content.decode()
    assert page_of(task) in own


def test_of_many_attempts_the_last_are_shown(admin_client: Client, make_task: MakeTask) -> None:
    task, now = make_task(), timezone.now()
    TaskAttempt.objects.bulk_create(
        TaskAttempt(
            task_id=task.pk, number=number, cycle=1, token=number, worker=uuid4(), started_at=now, finished_at=now,
            outcome="rate_limited", charged=False,
        )
        for number in range(1, 131)
    )  # fmt: skip
    Task.objects.filter(pk=task.pk).update(attempt=130)
    response = admin_client.get(page_of(task))
    assert [one.number for one in response.context["timeline"]] == list(range(31, 131))
    assert "30 earlier ones are not shown" in response.content.decode()


def test_children_are_listed_and_lead_back(admin_client: Client, make_task: MakeTask) -> None:
    parent = make_task()
    children = [make_task(parent_id=parent.pk, item_index=index) for index in range(3)]
    Task.objects.filter(pk=children[0].pk).update(state="succeeded", finished_at=timezone.now())
    html = admin_client.get(page_of(parent)).content.decode()
    assert "2 pending, 1 succeeded" in html
    assert page_of(children[2]) in html
    assert page_of(parent) in admin_client.get(page_of(children[0])).content.decode()


def test_a_page_of_a_broken_row_is_still_shown(admin_client: Client, died: Task) -> None:
    Task.objects.filter(pk=died.pk).update(error="{", progress="[1]", metadata="nonsense", callback_url="http://[")
    assert admin_client.get(page_of(died)).status_code == 200


@pytest.mark.parametrize("may", [False, True])
def test_texts_are_shown_on_post_to_whom_may_and_audited(as_person: AsPerson, died: Task, may: bool) -> None:
    client = as_person("view_task", *(["reveal_payload"] if may else []))
    html = client.get(page_of(died)).content.decode()
    assert (page_of(died, "reveal") in html) is may
    assert WORDS not in html
    asked = client.get(page_of(died, "reveal"))
    assert asked.status_code == (200 if may else 403)
    assert WORDS not in asked.content.decode()
    response = client.post(page_of(died, "reveal"), {"reason": "ticket 7"})
    assert (WORDS in response.content.decode()) is may
    assert response.status_code == (200 if may else 403)
    audited = AuditEntry.objects.filter(action="reveal", object_id=str(died.pk), reason="ticket 7")
    assert audited.exists() is may
    if may:
        assert "no-store" in response["Cache-Control"]
        assert "https://h/x?t=s" in response.content.decode()


@pytest.mark.parametrize("may", [False, True])
def test_cancelling_asks_first_and_needs_its_permission(as_person: AsPerson, make_task: MakeTask, may: bool) -> None:
    task = make_task()
    client = as_person("view_task", "change_task", *(["cancel_task"] if may else []))
    assert (page_of(task, "cancel_task") in client.get(page_of(task)).content.decode()) is may
    assert client.get(page_of(task, "cancel_task")).status_code == (200 if may else 403)
    assert Task.objects.get(pk=task.pk).state == "pending"
    assert client.post(page_of(task, "cancel_task"), {"reason": "twice"}).status_code == (302 if may else 403)
    assert Task.objects.get(pk=task.pk).state == ("cancelled" if may else "pending")
    assert AuditEntry.objects.filter(action="cancel", reason="twice").exists() is may


def test_a_task_that_ended_meanwhile_is_told(admin_client: Client, make_task: MakeTask) -> None:
    task = make_task()
    finish([ending(take(task))])
    html = admin_client.post(page_of(task, "cancel_task"), {"reason": ""}, follow=True).content.decode()
    assert "has ended already: succeeded" in html
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("action", ["reveal", "cancel_task"])
def test_an_action_needs_the_page_too(as_person: AsPerson, make_task: MakeTask, action: str) -> None:
    task = make_task()
    client = as_person("cancel_task", "reveal_payload")
    assert client.post(page_of(task, action), {"reason": ""}).status_code in {302, 403}
    assert Task.objects.get(pk=task.pk).state == "pending"
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("path", [LIST, QUEUES, WORKERS])
def test_a_page_needs_its_permission_and_works_empty(as_person: AsPerson, path: str) -> None:
    assert as_person().get(path).status_code == 403
    html = as_person(*VIEWS).get(path).content.decode()
    assert "manage.py worker" in html
    assert ">Pause<" not in html


@pytest.mark.parametrize("may", [False, True])
def test_a_queue_is_paused_and_resumed_by_post_of_whom_may(as_person: AsPerson, may: bool) -> None:
    client = as_person("view_queuestate", "change_queuestate", *(["pause_queue"] if may else []))
    pause, resume = (reverse(f"admin:tasks_queuestate_{verb}", args=["low"]) for verb in ("pause", "resume"))
    assert (pause in client.get(QUEUES).content.decode()) is may
    assert client.get(pause).status_code == (200 if may else 403)
    values = {"reason": "receiver is down", "resume_at": f"{timezone.now() + timedelta(hours=3):%Y-%m-%dT%H:%M}"}
    assert client.post(pause, values).status_code == (302 if may else 403)
    assert QueueState.objects.filter(paused_at__isnull=False).exists() is may
    if not may:
        assert client.post(resume, {"reason": ""}).status_code == 403
        return
    html = client.get(QUEUES).content.decode()
    assert "receiver is down" in html
    assert resume in html
    assert client.post(resume, {"reason": ""}).status_code == 302
    assert [one.name for one in queues.overview() if one.is_paused] == []
    assert set(AuditEntry.objects.values_list("action", flat=True)) == {"pause", "resume"}


@pytest.mark.parametrize(
    ("values", "said"),
    [({"reason": ""}, "This field is required"), ({"reason": "r", "resume_at": "2020-01-01T00:00"}, "time has passed")],
)
def test_a_pause_without_sense_is_asked_again(admin_client: Client, values: dict[str, str], said: str) -> None:
    response = admin_client.post(reverse("admin:tasks_queuestate_pause", args=["low"]), values)
    assert response.status_code == 200
    assert said in response.content.decode()
    assert not QueueState.objects.exists()


def test_a_queue_that_is_none_has_no_page(admin_client: Client) -> None:
    assert admin_client.get(reverse("admin:tasks_queuestate_pause", args=["nonsense"])).status_code == 404


def test_the_board_of_workers_tells_of_the_clock(admin_client: Client) -> None:
    assert "No clock has ever run" in admin_client.get(WORKERS).content.decode()
    now = timezone.now()
    ClockBeat.objects.create(chore="reap", beat_at=now, clock="node-1:5", error="ValueError: <b>")
    WorkerPresence.objects.create(
        id=uuid4(), lock_key=1, host="node-7", pid=42, queues="high,default,low,webhooks,quarantine", slots=9,
        expires_at=now + timedelta(seconds=10),
    )  # fmt: skip
    with CaptureQueriesContext(connection) as seen:
        html = admin_client.get(WORKERS).content.decode()
    assert len(seen) <= 8
    assert "manage.py" not in html
    assert "ValueError: &lt;b&gt;" in html
    assert "node-7:42" in html


def test_a_retry_policy_is_of_a_kind_there_is_and_its_numbers_make_sense(admin_client: Client) -> None:
    add = reverse("admin:tasks_retrypolicy_add")
    for values in (
        {"kind": "nonsense", "base": "1"},
        {"kind": "embeddings", "base": "-1"},
        {"kind": "embeddings", "factor": "0.5"},
    ):
        assert admin_client.post(add, values).status_code == 200
    assert not RetryPolicy.objects.exists()
    assert admin_client.post(add, {"kind": "embeddings", "base": "2", "max_retries": "5"}).status_code == 302
    row = RetryPolicy.objects.get()
    change = reverse("admin:tasks_retrypolicy_change", args=["embeddings"])
    assert admin_client.post(change, {"max_retries": "7"}).status_code == 302
    row.refresh_from_db()
    assert (row.kind, row.base, row.max_retries) == ("embeddings", None, 7)
    assert AuditEntry.objects.filter(action="update").exists()
