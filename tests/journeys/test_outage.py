"""The outage drill: a provider is down, 2,000 tasks die; it is mended, and five clicks bring all of them home.

The same by REST with a token. The same by command is in test_outage_by_command.py.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db.models import Count
from playwright.sync_api import expect

from apps.access import keys, operator_tokens
from apps.access.models import Project
from apps.dead_letters.models import Alert, BulkOperation, DeadLetter, FailureGroup
from apps.tasks import kinds, verify
from apps.tasks.enqueue import NewTask, accept_now
from apps.tasks.models import RetryPolicy, Task
from tests.conftest import MakeRoute, database_url
from tests.gateway import Gateway
from tests.journeys import wire
from tests.journeys.browser import InBrowser, Open
from tests.journeys.wire import eventually
from tests.upstream import Upstream, ok, status
from tests.worker import Child

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
TASKS = 2000
CLICKS = 5


@pytest.fixture
def crew(transactional_db: None) -> Iterator[None]:
    """A worker and a clock."""
    environment = {"REDRIVE_DATABASE_URL": database_url(), "REDRIVE_REDIS_URL": settings.REDRIVE.redis_url}
    children = [Child(environment, name) for name in ("worker", "clock")]
    yield
    for child in children:
        child.stop()


@pytest.fixture
def outage(crew: None, make_route: MakeRoute, upstream: Upstream, request: pytest.FixtureRequest) -> str:
    """A provider that answers 503, and `param` tasks that wait for it no longer than 5 s each; the model's name."""
    model = make_route(provider={"breaker_reset": 2})
    RetryPolicy.objects.create(kind="chat_completion", base=0.2, cap=0.5, park_limit=5.0)
    upstream.script(model, status(503))
    key, _ = keys.create(project=Project.objects.create(name="billing"), name="invoices", limits={})
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Say hello."}]})
    kind = kinds.find("chat_completion")
    accept_now([NewTask(key.project_id, kind, body, api_key_id=key.pk, deadline=3600.0) for _ in range(request.param)])
    return model


def has_died(tasks: int) -> bool:
    """Whether all of them have."""
    return DeadLetter.objects.filter(state="open").count() == tasks and not Task.objects.exclude(state="dead").exists()


def are_counted() -> bool:
    """Whether the clock has folded all deaths into their groups."""
    return sum(FailureGroup.objects.values_list("open_count", flat=True)) == DeadLetter.objects.count()


def broken() -> list[str]:
    """The invariants that do not hold."""
    return [invariant.name for invariant, count, _ in verify.verify() if count]


@pytest.mark.parametrize("outage", [TASKS], indirect=True)
def test_two_thousand_dead_tasks_are_brought_home_in_five_clicks(
    in_browser: InBrowser, outage: str, upstream: Upstream
) -> None:
    assert eventually(lambda: has_died(TASKS), within=90, every=0.5)
    assert FailureGroup.objects.count() <= 3, list(FailureGroup.objects.values_list("code", "upstream", "message"))
    assert eventually(are_counted, within=10)
    upstream.script(outage, ok())
    clicks = 0

    def journey(open_home: Open) -> None:
        nonlocal clicks
        page = open_home().page

        def click(name: str) -> None:
            nonlocal clicks
            page.get_by_role("button", name=name, exact=True).click()
            clicks += 1

        expect(page.locator(".rd-strip")).to_contain_text("2,000 open dead letters")
        page.get_by_label("All").first.check()
        clicks += 1
        click("Redrive…")
        expect(page.locator(".rd-start")).to_be_visible(timeout=30_000)
        page.locator("#id_confirm").fill(str(TASKS))
        page.locator("#id_rate").fill("400")
        page.locator("#id_max_in_flight").fill("500")
        click("Start")
        expect(page.get_by_text("It begins in")).to_be_visible()
        expect(page.locator(".rd-state.rd-canary, .rd-state.rd-running")).to_be_visible(timeout=30_000)
        expect(page.locator(".rd-state.rd-done")).to_be_visible(timeout=90_000)
        expect(page.locator(".rd-figures")).to_contain_text("2,000")

    in_browser(journey)
    assert clicks <= CLICKS
    operation = BulkOperation.objects.get()
    assert (operation.canary, operation.succeeded, operation.failed) == (3, TASKS, 0)
    assert Task.objects.filter(state="succeeded", cycle=2).count() == TASKS
    assert eventually(lambda: not FailureGroup.objects.exclude(state="resolved").exists(), within=10)
    assert broken() == []
    told = Alert.objects.filter(event="new_group").values("subject").annotate(n=Count("pk"))
    assert {one["subject"]: one["n"] for one in told} == dict.fromkeys(
        FailureGroup.objects.values_list("pk", flat=True), 1
    )


@pytest.mark.parametrize("outage", [TASKS], indirect=True)
def test_the_same_drill_by_rest(outage: str, upstream: Upstream, gateway: Gateway, admin_user: Any) -> None:
    assert eventually(lambda: has_died(TASKS), within=90, every=0.5)
    assert eventually(are_counted, within=10)
    upstream.script(outage, ok())
    secret = operator_tokens.create(user=admin_user)[1]

    def call(method: str, path: str, payload: Any = None) -> Any:
        headers = {"Authorization": f"Token {secret}"}
        reply = wire.call(gateway.url, method, f"/ops/api/{path}", payload=payload, headers=headers)
        assert reply.status < 300, reply.body
        return reply.json()

    groups = [one["fingerprint"] for one in call("GET", "groups/?state=for_review")["results"]]
    at = f"bulk/{call('POST', 'bulk/', {'action': 'redrive', 'groups': groups})['id']}/"
    assert eventually(lambda: call("GET", at)["state"] == "ready", within=30, every=0.2)
    call("POST", f"{at}start/", {"confirm": TASKS, "rate": 400, "max_in_flight": 500, "reason": "it is back"})
    assert eventually(lambda: call("GET", at)["state"] == "done", within=90, every=0.5)
    found = call("GET", at)
    assert (found["succeeded"], found["failed"], found["canary"]) == (TASKS, 0, 3)
    assert eventually(lambda: call("GET", "groups/?state=resolved")["results"], within=10)
    assert broken() == []
