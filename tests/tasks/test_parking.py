"""A task waits for a closed door for so long and no longer; while nobody can tell whether it is closed, time stands."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from apps.access.errors import LimitsUnknown
from apps.core import errors
from apps.providers import http
from apps.tasks import kinds, policies, retry_policy
from apps.tasks.executor import Executor
from apps.tasks.kinds import Policy
from apps.tasks.lifecycle.finish import finish
from apps.tasks.models import RetryPolicy, Task, TaskAttempt
from apps.tasks.retry_policy import History, decide
from tests.conftest import MakeKey, MakeRoute
from tests.stores import NOBODY_LISTENS, PointRedisAt, point_redis_at
from tests.tasks.conftest import MakeKind, MakeTask, ending, on_db, take, until
from tests.tasks.test_executor import raising

__all__ = ["point_redis_at"]
pytestmark = pytest.mark.django_db(transaction=True)
LONG_PARKED = History(attempt=9, charged_failures=0, worker_losses=0, parked_for=10_000.0)


@pytest.mark.parametrize("error", [errors.BudgetExceeded(), errors.ServiceUnavailable()])
def test_who_waited_long_enough_for_a_closed_door_dies(error: errors.RedriveError) -> None:
    assert decide(error, LONG_PARKED, Policy()).state == "dead"


def test_nobody_dies_of_limits_that_cannot_be_checked() -> None:
    decision = decide(LimitsUnknown(), LONG_PARKED, Policy(park_limit=0))
    assert (decision.state, decision.outcome, decision.charged) == ("retrying", "parked", False)
    assert 2 <= decision.delay <= 6


def test_the_time_behind_a_door_stands_still_while_redis_is_away(make_task: MakeTask) -> None:
    task = make_task()
    finish([ending(take(task), "retrying", "parked", parked=True)])
    Task.objects.filter(pk=task.pk).update(parked_since=timezone.now() - timedelta(seconds=100))
    claimed = take(task)
    assert 100 <= claimed.parked_for < 110
    finish([ending(claimed, "retrying", "parked", frozen=True, delay=60)])
    Task.objects.filter(pk=task.pk).update(next_attempt_at=timezone.now())
    assert 40 <= take(task).parked_for < 50  # as if the 60 seconds, which are not over, had not been


def test_it_does_not_begin_while_redis_is_away(make_task: MakeTask) -> None:
    task = make_task()
    finish([ending(take(task), "retrying", "parked", frozen=True)])
    task.refresh_from_db()
    assert (task.parked_since, take(task).parked_for) == (None, 0)


async def test_a_task_with_a_budget_waits_for_redis_however_short_its_patience(
    worker: Executor,
    make_task: MakeTask,
    make_key: MakeKey,
    make_route: MakeRoute,
    point_redis_at: PointRedisAt,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry_policy, "UNKNOWN_DELAY", (0.01, 0.02))
    monkeypatch.setattr(policies, "_read_at", float("-inf"))
    await on_db(RetryPolicy.objects.create)(kind="chat_completion", park_limit=0)
    redis_url = settings.REDRIVE.redis_url
    point_redis_at(NOBODY_LISTENS)
    key, _ = await on_db(make_key)(limits={"monthly_budget_usd": "1"})
    args = {"model": await on_db(make_route)(), "messages": [{"role": "user", "content": "hello"}]}
    kind = kinds.find("chat_completion")
    task = await on_db(make_task)(kind, project_id=key.project_id, api_key_id=key.pk, args=args)
    while (await on_db(Task.objects.get)(pk=task.pk)).attempt < 3:
        await until(task, "retrying")
        worker.wake(["default"])
    point_redis_at(redis_url)
    found = await until(task, "succeeded", "dead")
    await http.close()
    assert (found.state, found.charged_failures) == ("succeeded", 0)
    outcomes = await on_db(lambda: list(TaskAttempt.objects.order_by("number").values_list("outcome", flat=True)))()
    assert outcomes[:2] == ["parked", "parked"]


async def test_a_handler_that_finds_postgres_away_is_not_to_blame(
    worker: Executor, make_task: MakeTask, make_kind: MakeKind
) -> None:
    gone = [OperationalError("the connection is lost") for _ in range(2)]
    task = await on_db(make_task)(make_kind(raising(*gone, None)))
    found = await until(task, "succeeded", "dead")
    assert (found.state, found.charged_failures) == ("succeeded", 0)
