"""What a lost worker may have spent is booked by an estimate, so that neither ledger nor budget forgets it."""

from typing import Any
from uuid import uuid4

import pytest
from redis import Redis

from apps.access.models import ApiKey
from apps.completions.models import LedgerEntry
from apps.providers import http
from apps.providers.models import ModelRoute
from apps.tasks import kinds, verify
from apps.tasks.executor import Executor
from apps.tasks.lifecycle import reap
from apps.tasks.models import Task, TaskAttempt, TaskPayload
from tests.conftest import MakeKey, MakeRoute
from tests.stores import valkey
from tests.tasks.conftest import MakeTask, on_db, take, until
from tests.tasks.test_reaping import _long_after_the_start

__all__ = ["_long_after_the_start", "valkey"]
pytestmark = pytest.mark.django_db(transaction=True)
HELLO = [{"role": "user", "content": "hello there, this has forty characters"}]


def lost(make_task: MakeTask, key: ApiKey | None, args: Any, kind: str = "chat_completion", **fields: Any) -> Task:
    """A task whose worker was lost while it ran."""
    found: Task = make_task(
        kinds.find(kind),
        args=args,
        project_id=key.project_id if key else None,
        api_key_id=key.pk if key else None,
        request_id="req_lost",
        end_user="anna",
        **fields,
    )
    take(found)
    assert reap.reap() == 1
    return found


def i10() -> int:
    return sum(count for invariant, count, _ in verify.verify() if invariant.name == "I10")


@pytest.mark.parametrize(
    ("kind", "args", "tokens"),
    [
        ("chat_completion", {"messages": HELLO}, 9),
        ("embeddings", {"input": ["x" * 40, "y" * 40]}, 20),
    ],
)
def test_a_lost_call_is_in_the_ledger(
    make_task: MakeTask, make_key: MakeKey, make_route: MakeRoute, kind: str, args: dict[str, Any], tokens: int
) -> None:
    key, _ = make_key()
    model = make_route(input_usd_per_million=2, output_usd_per_million=9)
    task = lost(make_task, key, {"model": model, **args}, kind)
    [row] = LedgerEntry.objects.all()
    assert (row.outcome, row.estimated, row.error_code, row.status) == ("interrupted", True, "worker_lost", None)
    assert (row.input_tokens, row.output_tokens, row.cost_nusd) == (tokens, 0, tokens * 2000)
    assert (row.project_id, row.api_key_id, row.request_id, row.end_user) == (
        key.project_id, key.pk, "req_lost", "anna",
    )  # fmt: skip
    assert (row.model, row.upstream_model, row.operation) == (
        model, model, {"embeddings": "embeddings"}.get(kind, "chat/completions"),
    )  # fmt: skip
    assert (row.task_id, row.task_attempt) == (task.pk, 1)
    attempt = TaskAttempt.objects.get(task_id=task.pk)
    assert (attempt.input_tokens, attempt.cost_nusd) == (tokens, tokens * 2000)
    assert "may have run twice" in attempt.error_message
    assert i10() == 0
    LedgerEntry.objects.all().delete()
    assert i10() == 1


def test_each_lost_attempt_has_its_row(make_task: MakeTask, make_key: MakeKey, make_route: MakeRoute) -> None:
    key, _ = make_key()
    task = lost(make_task, key, {"model": make_route(), "messages": HELLO})
    Task.objects.filter(pk=task.pk).update(next_attempt_at="2020-01-01T00:00:00Z")
    take(task)
    assert reap.reap() == 1
    assert list(LedgerEntry.objects.order_by("task_attempt").values_list("task_attempt", flat=True)) == [1, 2]
    assert i10() == 0


def test_a_route_that_is_gone_costs_what_an_unknown_one_does(make_task: MakeTask, make_key: MakeKey) -> None:
    key, _ = make_key()
    assert not ModelRoute.objects.filter(public_name="gone").exists()
    lost(make_task, key, {"model": "gone", "messages": HELLO})
    row = LedgerEntry.objects.get()
    assert (row.model, row.provider, row.cost_nusd, row.estimated) == ("gone", "", 9 * 1000, True)


@pytest.mark.parametrize("body", ["{broken", '{"messages": []}', "[]", None])
def test_arguments_that_reach_no_upstream_cost_nothing(
    make_task: MakeTask, make_key: MakeKey, body: str | None
) -> None:
    key, _ = make_key()
    task = make_task(kinds.find("chat_completion"), project_id=key.project_id, api_key_id=key.pk)
    take(task)
    if body is None:
        TaskPayload.objects.filter(task_id=task.pk).delete()
    else:
        TaskPayload.objects.filter(task_id=task.pk).update(body=body)
    assert reap.reap() == 1
    assert LedgerEntry.objects.get().cost_nusd == 0
    assert i10() == 0


def test_a_kind_that_calls_nobody_and_a_task_without_a_key_have_no_row(make_task: MakeTask) -> None:
    take(make_task())
    take(make_task(kinds.find("chat_completion"), args={"model": "m", "messages": HELLO}))
    assert reap.reap() == 2
    assert not LedgerEntry.objects.exists()
    assert i10() == 0


def test_the_budgets_are_counted_again(
    make_task: MakeTask, make_key: MakeKey, make_route: MakeRoute, valkey: Redis
) -> None:
    key, _ = make_key()
    base = f"rd:{{{key.project_id.hex}}}"
    mine = [f"{base}:project:{key.project_id.hex}:b", f"{base}:key:{key.pk.hex}:b"]
    others = [f"{base}:key:{key.pk.hex}:t", f"{base}:key:{uuid4().hex}:b"]
    for name in (*mine, *others):
        valkey.hset(name, "spent", 1)
    lost(make_task, key, {"model": make_route(), "messages": HELLO})
    assert [bool(valkey.exists(name)) for name in (*mine, *others)] == [False, False, True, True]


async def test_what_a_task_spent_bears_its_name(
    worker: Executor, make_task: MakeTask, make_key: MakeKey, make_route: MakeRoute
) -> None:
    key, _ = await on_db(make_key)()
    model = await on_db(make_route)()
    fields = {"project_id": key.project_id, "api_key_id": key.pk, "args": {"model": model, "messages": HELLO}}
    task = await on_db(make_task)(kinds.find("chat_completion"), **fields)
    assert (await until(task, "succeeded", "dead")).state == "succeeded"
    await http.close()
    row = await on_db(LedgerEntry.objects.get)(model=model)
    assert (row.task_id, row.task_attempt, row.outcome) == (task.pk, 1, "succeeded")
    assert await on_db(i10)() == 0
