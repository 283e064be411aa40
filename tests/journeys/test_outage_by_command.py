"""The outage drill from a terminal: a provider is down and tasks die; it is mended, and one command redrives them."""

import json
from collections import Counter
from collections.abc import Iterator
from io import StringIO

import pytest
from django.conf import settings
from django.core.management import call_command

from apps.dead_letters.models import BulkOperation, DeadLetter, FailureGroup
from apps.tasks import kinds
from apps.tasks.enqueue import NewTask, accept_now
from apps.tasks.models import RetryPolicy, Task
from tests.conftest import MakeRoute, database_url
from tests.dead_letters.test_triage import broken
from tests.journeys.conftest import HELLO, Client
from tests.journeys.wire import eventually
from tests.upstream import Upstream, ok, status
from tests.worker import Child

pytestmark = pytest.mark.django_db(transaction=True)
TASKS = 2000


def environment() -> dict[str, str]:
    return {"REDRIVE_DATABASE_URL": database_url(), "REDRIVE_REDIS_URL": settings.REDRIVE.redis_url}


@pytest.fixture
def clock(transactional_db: None) -> Iterator[Child]:
    """A clock for the test."""
    child = Child(environment(), "clock")
    yield child
    child.stop()


def command(*args: str, code: int = 0) -> str:
    """What `manage.py` writes, in a process of its own that ends with this code."""
    child = Child(environment(), *args)
    assert child.process.wait(120) == code, child.log.read_text()
    return child.log.read_text()


def shown(*args: str) -> str:
    """What `manage.py redrive` writes, in this process."""
    out = StringIO()
    call_command("redrive", *args, stdout=out)
    return out.getvalue()


def counts() -> Counter[str]:
    return Counter(Task.objects.values_list("state", flat=True))


def test_an_outage_is_over_with_one_command(
    worker: Child, clock: Child, client: Client, route: MakeRoute, upstream: Upstream
) -> None:
    RetryPolicy.objects.create(kind="chat_completion", base=0.1, cap=0.2, max_retries=1, park_limit=5.0)
    model = route(provider={"breaker_reset": 0.5})
    upstream.script(model, status(503))
    body = {"model": model, "messages": HELLO}
    assert client.call("POST", "/v1/tasks/chat/completions", payload=body).status == 202
    first = Task.objects.get()
    more = [
        NewTask(
            first.project_id, kinds.find(first.kind), json.dumps(body), api_key_id=first.api_key_id, deadline=3600.0
        )
        for _ in range(TASKS - 1)
    ]
    accept_now(more)
    assert eventually(lambda: counts() == {"dead": TASKS}, within=90, every=0.2), counts()
    assert eventually(lambda: sum(FailureGroup.objects.values_list("open_count", flat=True)) == TASKS, within=20)
    assert FailureGroup.objects.count() <= 3, [(str(one), one.message) for one in FailureGroup.objects.all()]

    listed = [json.loads(line) for line in shown("groups", "-q", "kind:chat_completion", "--json").splitlines()]
    assert sum(group["open"] for group in listed) == TASKS

    upstream.script(model, ok("mended"))
    groups = [group["fingerprint"][:8] for group in listed]
    said = command(
        "redrive", "bulk", "--group", *groups, "--reason", "the provider is back", "--rate", "400",
        "--max-in-flight", "500", "--yes", str(TASKS), "--follow",
    )  # fmt: skip
    assert f"{TASKS:,} letters to be redriven" in said
    assert f"done: {TASKS:,} of {TASKS:,} redriven, {TASKS:,} succeeded, 0 failed again, 0 in flight" in said
    assert counts() == {"succeeded": TASKS}
    operation = BulkOperation.objects.get()
    assert (operation.state, operation.canary, operation.succeeded) == ("done", 3, TASKS)
    assert set(DeadLetter.objects.values_list("state", "outcome")) == {("redriven", "succeeded")}
    assert eventually(lambda: set(FailureGroup.objects.values_list("state", flat=True)) == {"resolved"}, within=20)
    assert broken() == []
    call_command("verify", stdout=StringIO())
