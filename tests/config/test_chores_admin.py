"""The schedules of Celery's beat and the results of its chores: in our look, audited, and safe."""

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from django_celery_beat.models import IntervalSchedule, PeriodicTask
from django_celery_results.models import TaskResult
from redis import Redis

from apps.access.models import AuditEntry
from apps.tasks.doorbell import WAKE
from config import celery
from tests.stores import NOBODY_LISTENS

pytestmark = pytest.mark.django_db
ADD = reverse("admin:django_celery_beat_periodictask_add")


@pytest.fixture
def chore() -> PeriodicTask:
    interval = IntervalSchedule.objects.create(every=1, period="hours")
    return PeriodicTask.objects.create(name="nightly", task=WAKE, args='[["low"]]', interval=interval, queue="a-test")


def page_of(row: PeriodicTask, action: str = "change") -> str:
    return reverse(f"admin:django_celery_beat_periodictask_{action}", args=[row.pk])


def form(**values: Any) -> dict[str, Any]:
    return {"name": "new", "task": WAKE, "args": "[]", "kwargs": "{}", "enabled": "on", **values}


def test_a_chore_is_added_and_changed_with_its_audit(admin_client: Client, chore: PeriodicTask) -> None:
    values = form(interval=chore.interval_id, audit_reason="weekly report")
    assert admin_client.post(ADD, values).status_code == 302
    row = PeriodicTask.objects.get(name="new")
    assert admin_client.post(page_of(row), {**values, "description": "changed"}).status_code == 302
    assert list(AuditEntry.objects.order_by("at").values_list("action", "reason")) == [
        ("create", "weekly report"), ("update", "weekly report"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "wrong", [{"task": "os.system"}, {"args": "{"}, {"kwargs": "nonsense"}, {"interval": ""}, {"name": ""}]
)
def test_a_chore_that_no_worker_could_do_is_refused(
    admin_client: Client, chore: PeriodicTask, wrong: dict[str, str]
) -> None:
    assert admin_client.post(ADD, {**form(interval=chore.interval_id), **wrong}).status_code == 200
    assert PeriodicTask.objects.filter(name__in=["new", ""]).count() == 0


def test_the_page_holds_no_script_of_its_own(admin_client: Client, chore: PeriodicTask) -> None:
    html = admin_client.get(page_of(chore)).content.decode()
    assert "readableCrontabs" not in html


def test_running_it_now_asks_first_and_sends_one_message(
    admin_client: Client, chore: PeriodicTask, settings: Any
) -> None:
    broker = Redis.from_url(settings.REDRIVE.redis_url)
    broker.delete("a-test")
    assert admin_client.get(page_of(chore, "run_now")).status_code == 200
    assert broker.llen("a-test") == 0
    assert admin_client.post(page_of(chore, "run_now"), {"reason": "missed"}).status_code == 302
    assert broker.llen("a-test") == 1
    assert AuditEntry.objects.get(action="run").reason == "missed"
    broker.delete("a-test")


def test_one_that_cannot_be_sent_is_told_and_not_audited(
    admin_client: Client, chore: PeriodicTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    PeriodicTask.objects.filter(pk=chore.pk).update(task="gone.with.the.code")
    html = admin_client.post(page_of(chore, "run_now"), {"reason": ""}, follow=True).content.decode()
    assert "No worker knows the task gone.with.the.code" in html
    assert not AuditEntry.objects.exists()


def test_a_broker_that_is_away_is_told(admin_client: Client, chore: PeriodicTask) -> None:
    own = celery.app.conf.broker_url
    celery.app.conf.broker_write_url = NOBODY_LISTENS
    celery.app.pool.force_close_all()
    celery.app._pool = None
    celery.app.amqp._producer_pool = None
    try:
        html = admin_client.post(page_of(chore, "run_now"), {"reason": ""}, follow=True).content.decode()
    finally:
        celery.app.conf.broker_write_url = own
        celery.app._pool = None
        celery.app.amqp._producer_pool = None
    assert "It was not sent" in html
    assert not AuditEntry.objects.exists()


def test_who_may_only_look_cannot_run_it(client: Client, django_user_model: Any, chore: PeriodicTask) -> None:
    person = django_user_model.objects.create_user("person", is_staff=True)
    person.user_permissions.add(Permission.objects.get(codename="view_periodictask"))
    client.force_login(person)
    assert page_of(chore, "run_now") not in client.get(page_of(chore)).content.decode()
    assert client.post(page_of(chore, "run_now"), {"reason": ""}).status_code == 403


def test_results_are_to_look_at(admin_client: Client) -> None:
    row = TaskResult.objects.create(task_id="t-1", task_name=WAKE, status="FAILURE", traceback="<script>")
    page = reverse("admin:django_celery_results_taskresult_change", args=[row.pk])
    html = admin_client.get(page).content.decode()
    assert "&lt;script&gt;" in html
    assert admin_client.post(page, {"status": "SUCCESS"}).status_code == 403
    assert (
        "t-1"
        in admin_client.get(reverse("admin:django_celery_results_taskresult_changelist"), {"q": "t-1"}).content.decode()
    )
