"""What waits for a retry dies of its last failure once an operator holds that."""

import json

import pytest

from apps.core.errors import ServiceUnavailable
from apps.dead_letters.models import DeadLetter
from apps.providers.errors import UpstreamBroken
from apps.tasks import holds
from apps.tasks.lifecycle.ending import Failure, failure_of
from apps.tasks.lifecycle.finish import finish
from apps.tasks.lifecycle.held import end_held
from apps.tasks.models import Task
from apps.tasks.verify import verify
from tests.tasks.conftest import MakeKind, MakeTask, News, ending, make_kind, make_task, news, take

__all__ = ["make_kind", "make_task", "news"]
pytestmark = pytest.mark.django_db


def fail(task: Task, failure: Failure, **decision: object) -> str | None:
    """End its next attempt with a failure that a retry may mend."""
    return finish([ending(take(task), "retrying", "failed", delay=60.0, failure=failure, **decision)])[0]


@pytest.fixture
def failure(make_kind: MakeKind) -> Failure:
    return failure_of(UpstreamBroken("Overloaded"), kind="k", upstream="")


def test_a_task_that_waits_for_a_held_retry_dies_with_its_letter(
    make_task: MakeTask, failure: Failure, news: News
) -> None:
    task, other = make_task(), make_task(queue="low")
    assert fail(task, failure, charged=True) == "retrying"
    assert fail(other, failure_of(UpstreamBroken("Another"), kind="k", upstream=""), charged=True) == "retrying"
    assert end_held() == 0
    holds.hold(failure.fingerprint)
    assert end_held() == 1
    task.refresh_from_db()
    other.refresh_from_db()
    assert (task.state, other.state) == ("dead", "retrying")
    assert json.loads(task.error)["code"] == "model_error"
    letter = DeadLetter.objects.get(task_id=task.pk)
    assert (letter.group_id, letter.code) == (failure.fingerprint, "model_error")
    assert [one.state for one in news["finished"]] == ["dead"]
    assert end_held() == 0
    assert [invariant.name for invariant, count, _ in verify() if count] == []


def test_a_failure_that_is_not_charged_is_held_too(make_task: MakeTask, failure: Failure) -> None:
    holds.hold(failure.fingerprint)
    task = make_task()
    assert fail(task, failure, charged=False) == "dead"


def test_what_is_handed_back_or_fails_otherwise_is_tried_again(make_task: MakeTask, failure: Failure) -> None:
    holds.hold(failure.fingerprint)
    task = make_task()
    assert finish([ending(take(task), "retrying", "handed_back", delay=0.0)]) == ["retrying"]
    assert fail(make_task(), failure_of(ServiceUnavailable("x"), kind="k", upstream=""), parked=True) == "retrying"
    assert end_held() == 0
