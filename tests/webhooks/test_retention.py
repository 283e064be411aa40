"""What retention deletes and what it leaves."""

from typing import Any

import pytest

from apps.core import clock, pruning
from apps.tasks.models import Task
from apps.webhooks import retention
from apps.webhooks.models import WebhookAttempt, WebhookEvent
from tests.time import age
from tests.webhooks.conftest import End, MakeProject, event_of

pytestmark = pytest.mark.django_db
URL = "http://127.0.0.2:1/"


def attempt_of(event: WebhookEvent) -> WebhookAttempt:
    return WebhookAttempt.objects.create(
        event_id=event.pk,
        project_id=event.project_id,
        task_id=event.task_id,
        delivery_id=event.pk,
        number=1,
        type=event.type,
        url=event.url,
        duration_ms=1,
    )


def test_what_is_old_goes_and_what_is_still_delivered_stays(make_project: MakeProject, end: End, settings: Any) -> None:
    settings.REDRIVE = settings.REDRIVE.model_copy(update={"webhook_retention_days": 10})
    project, _ = make_project()
    old, unfinished, young = (event_of(end(project, URL)) for _ in range(3))
    for event in (old, young):
        Task.objects.filter(pk=event.delivery_id).update(state="cancelled", finished_at=event.created_at)
    rows = [attempt_of(event) for event in (old, unfinished, young)]
    for row in (old, unfinished, *rows[:2]):
        age(row, days=11)
    for row in (young, rows[2]):
        age(row, days=9)
    assert retention.prune() == 3
    assert set(WebhookEvent.objects.values_list("pk", flat=True)) == {unfinished.pk, young.pk}
    assert set(WebhookAttempt.objects.values_list("pk", flat=True)) == {rows[2].pk}
    assert retention.prune() == 0


def test_the_clock_and_the_command_do_it() -> None:
    assert retention.prune in {one.step for one in pruning.all_of_them()}
    assert "prune" in {chore.name for chore in clock.chores()}
