"""What becomes of accepted work when the API key that sent it, or its project, is not what it was."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from apps.access import keys
from apps.access.authentication import caller_of, forget
from apps.access.models import ApiKey
from apps.core import errors
from apps.core.database import in_db
from apps.dead_letters import triage
from apps.dead_letters.models import DeadLetter
from apps.providers import http
from apps.tasks import kinds
from apps.tasks.executor import Executor
from apps.tasks.models import Task
from tests.conftest import MakeKey, MakeRoute
from tests.tasks.conftest import MakeTask, on_db, until
from tests.upstream import Upstream

pytestmark = pytest.mark.django_db(transaction=True)
LATER: dict[str, Callable[[ApiKey], Any]] = {
    "rotated": lambda key: keys.rotate(key=key, overlap=timedelta(0)),
    "expired": lambda key: ApiKey.objects.filter(pk=key.pk).update(expires_at=datetime(2020, 1, 1, tzinfo=UTC)),
    "disabled": lambda key: keys.set_disabled(key=key, disabled=True),
    "deleted": lambda key: key.delete(),
    "deleted with its project": lambda key: (key.delete(), key.project.delete()),
}


async def a_task(make_task: MakeTask, key: ApiKey, model: str) -> Task:
    args = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    kind = kinds.find("chat_completion")
    made: Task = await on_db(make_task)(kind, project_id=key.project_id, api_key_id=key.pk, args=args, delay=0.05)
    return made


@pytest.mark.parametrize("what", ["rotated", "expired"])
async def test_work_that_was_accepted_is_done(
    worker: Executor, make_task: MakeTask, make_key: MakeKey, make_route: MakeRoute, what: str
) -> None:
    key, _ = await on_db(make_key)()
    model = await on_db(make_route)()
    await in_db(LATER[what], key)
    found = await until(await a_task(make_task, key, model), "succeeded", "dead")
    await http.close()
    assert found.state == "succeeded"


@pytest.mark.parametrize("what", ["disabled", "deleted", "deleted with its project"])
async def test_nothing_is_spent_in_the_name_of_a_key_that_was_taken_away(
    worker: Executor, make_task: MakeTask, make_key: MakeKey, make_route: MakeRoute, upstream: Upstream, what: str
) -> None:
    key, _ = await on_db(make_key)()
    model = await on_db(make_route)()
    project_id = key.project_id
    await in_db(LATER[what], key)
    key.project_id = project_id
    key.pk = key.pk or (await on_db(ApiKey)()).pk  # Django forgets the id of what it deletes
    found = await until(await a_task(make_task, key, model), "succeeded", "dead")
    assert (found.state, found.attempt, '"code":"invalid_api_key"' in found.error) == ("dead", 1, True)
    letter = await on_db(DeadLetter.objects.get)(task_id=found.pk)
    assert (letter.code, letter.state, letter.project_id) == ("invalid_api_key", "open", project_id)
    assert upstream.requests(model) == []


async def test_work_of_a_disabled_key_is_redriven_once_it_is_enabled(
    worker: Executor, make_task: MakeTask, make_key: MakeKey, make_route: MakeRoute
) -> None:
    key, _ = await on_db(make_key)()
    model = await on_db(make_route)()
    await caller_of(key.pk)  # it is known
    await in_db(keys.set_disabled, key=key, disabled=True)
    forget()
    with pytest.raises(errors.InvalidApiKey):
        await caller_of(key.pk)
    task = await a_task(make_task, key, model)
    await until(task, "dead")
    await in_db(keys.set_disabled, key=key, disabled=False)
    letter = await on_db(DeadLetter.objects.get)(task_id=task.pk)
    await in_db(triage.redrive, letter.pk, reason="enabled again")
    found = await until(task, "succeeded", "cancelled")
    await http.close()
    assert found.state == "succeeded"
