"""No address of the admin changes a row on GET, whatever it is called and whoever added it."""

from datetime import timedelta
from typing import Any

import pytest
from axes.models import AccessAttempt, AccessLog
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule
from django_celery_results.models import GroupResult, TaskResult

from apps.access import operator_tokens
from apps.completions.models import LedgerEntry, StoredBody
from apps.dead_letters.models import Alert, AlertChannel, AlertRule, BulkOperation, DeadLetter, FailureGroup
from apps.providers import breaker_board, circuit_breaker
from apps.providers.models import Upstream
from apps.tasks.models import QueueState, RetryPolicy, Task, WorkerPresence
from apps.webhooks import secrets
from apps.webhooks.models import DisabledUrl, WebhookAttempt, WebhookEvent
from tests.conftest import MakeKey, MakeRoute

LEFT_OUT = {"django_session"}  # a session's expiry may be written by looking
LEAVES = {"logout"}


def patterns(resolver: Any, prefix: str = "") -> list[tuple[str, URLPattern]]:
    """Every address below a resolver, with its route as a template."""
    found: list[tuple[str, URLPattern]] = []
    for one in resolver.url_patterns:
        route = prefix + str(one.pattern)
        found += patterns(one, route) if isinstance(one, URLResolver) else [(route, one)]
    return found


def admin_urls() -> list[str]:
    """Every address of the admin, those of a row filled in with an existing one."""
    resolver = next(one for one in get_resolver().url_patterns if str(one.pattern) == "admin/")
    urls = []
    for route, pattern in patterns(resolver, "/admin/"):
        if pattern.name in LEAVES or "(?P" in route:
            continue
        route = route.replace("<path:content_type_id>/<path:object_id>/", "1/1/")
        model_admin = getattr(pattern.callback, "model_admin", None)
        model = model_admin.model if model_admin else User if "/auth/user/" in route else None
        row = model._base_manager.first() if model else None
        for name in ("<path:object_id>", "<id>"):
            if name in route:
                assert row is not None, f"the test makes no row for {route}"
                route = route.replace(name, str(row.pk))
        urls.append(route)
    return urls


def rows() -> dict[str, str]:
    """A digest of every table."""
    with connection.cursor() as cursor:
        names = [name for name in connection.introspection.table_names(cursor) if name not in LEFT_OUT]
        digest = "md5(coalesce(string_agg(t::text, ',' ORDER BY t::text), ''))"
        cursor.execute(" UNION ALL ".join(f"SELECT '{name}', {digest} FROM {name} AS t" for name in names))
        return dict(cursor.fetchall())


@pytest.fixture
def one_of_each(admin_user: Any, make_key: MakeKey, make_route: MakeRoute) -> Upstream:
    """A row of every model that the admin knows; its breaker is open."""
    key, _ = make_key()
    # The walk may take longer than a breaker usually stays open.
    route = make_route(provider={"breaker_reset": 3600})
    upstream = Upstream.objects.select_related("provider").get(route__public_name=route)
    now = timezone.now()
    LedgerEntry.objects.create(
        created_at=now, request_id="r", project_id=key.project_id, api_key=key, operation="chat/completions",
        model="m", provider="p", upstream_model="u", attempt=1, stream=False, outcome="succeeded", input_tokens=1,
        cached_tokens=0, output_tokens=1, cost_nusd=1, estimated=False, latency_ms=1, elapsed_ms=1,
    )  # fmt: skip
    StoredBody.objects.create(
        request_id="r", project_id=key.project_id, created_at=now, expires_at=now + timedelta(days=1), request="{}"
    )
    task = Task.objects.create(
        project_id=key.project_id, api_key=key, kind="chat_completion", priority="low", queue="low",
        next_attempt_at=now, state="dead", finished_at=now,
    )  # fmt: skip
    QueueState.objects.create(name="low", paused_at=now)
    WorkerPresence.objects.create(id=task.pk, lock_key=1, host="h", pid=1, queues="low", slots=1, expires_at=now)
    RetryPolicy.objects.create(kind="chat_completion", base=2)
    group = FailureGroup.objects.create(fingerprint="f", kind="chat_completion", queue="low", code="c", message="m")
    DeadLetter.objects.create(
        task_id=task.pk, cycle=1, group=group, project_id=key.project_id, kind="chat_completion", queue="low",
        code="c", attempts=1,
    )  # fmt: skip
    BulkOperation.objects.create(action="redrive", title="t", created_by="u", state="ready", total=1)
    AlertChannel.objects.create(name="ops", url="json://nowhere.test/")
    rule = AlertRule.objects.get(event="rate")
    Alert.objects.create(rule=rule, event="rate", severity="critical", subject="chat_completion", title="t")
    secrets.create(project=key.project)
    operator_tokens.create(user=admin_user)
    event = WebhookEvent.objects.create(
        project_id=key.project_id, task_id=task.pk, cycle=1, type="task.dead", url="http://a/", body="{}", held=True
    )
    WebhookAttempt.objects.create(
        event_id=event.pk, project_id=key.project_id, task_id=task.pk, delivery_id=task.pk, number=1, type="task.dead",
        url="http://a/", duration_ms=1,
    )  # fmt: skip
    DisabledUrl.objects.create(project_id=key.project_id, url="http://b/")
    Group.objects.create(name="viewers")
    interval = IntervalSchedule.objects.create(every=1, period="hours")
    CrontabSchedule.objects.create()
    ClockedSchedule.objects.create(clocked_time=now)
    SolarSchedule.objects.create(event="sunrise", latitude=1, longitude=1)
    PeriodicTask.objects.create(name="chore", task="redrive.wake", args="[[]]", interval=interval)
    TaskResult.objects.create(task_id="t")
    GroupResult.objects.create(group_id="g")
    AccessAttempt.objects.create(username="u", failures_since_start=1, user_agent="", http_accept="", path_info="")
    AccessLog.objects.create(username="u", user_agent="", http_accept="", path_info="")
    for _ in range(3):
        circuit_breaker._by_client(breaker_board._upstream(upstream.provider, upstream.model), "fail")
    return upstream


def test_no_admin_address_changes_a_row_or_a_breaker_on_get(admin_client: Client, one_of_each: Upstream) -> None:
    urls = admin_urls()
    assert len(urls) > 12 * len(admin.site._registry) / 3
    before = rows()
    for url in urls:
        for query in ({}, {"model": one_of_each.model, "overlap": "0", "post": "yes", "_save": "1", "confirm": "1"}):
            response = admin_client.get(url, query)
            assert response.status_code in {200, 302, 400, 403, 404, 405}, f"{url}: {response.status_code}"
        after = rows()
        assert after == before, f"GET {url} changed {[name for name in after if after[name] != before.get(name)]}"
    assert breaker_board.load(provider=one_of_each.provider)[0].state == "open"


@pytest.mark.parametrize("bad", ["0", "x", "%00", "a" * 300, "-1"])
def test_an_id_that_is_none_is_no_fault_of_ours(admin_client: Client, admin_user: Any, bad: str) -> None:
    resolver = next(one for one in get_resolver().url_patterns if str(one.pattern) == "admin/")
    routes = [route for route, _ in patterns(resolver, "/admin/") if "<path:object_id>" in route and "(?P" not in route]
    assert len(routes) > 50
    for route in routes:
        url = route.replace("<path:content_type_id>", "1").replace("<path:object_id>", bad)
        response = admin_client.get(url)
        assert response.status_code in {200, 302, 400, 403, 404, 405}, f"{url}: {response.status_code}"


def test_every_own_action_is_among_the_addresses(admin_user: Any, one_of_each: Upstream) -> None:
    urls = " ".join(admin_urls())
    actions = (
        "rotate", "disable", "enable", "test", "reset-breaker", "reveal", "cancel", "redrive", "discard", "revoke",
        "redeliver", "pause", "resume", "edit", "restore", "review", "assign", "snooze", "resolve", "reopen", "note",
        "hold", "release", "act", "start", "undo", "pace", "take-back", "acknowledge", "send-test",
    )  # fmt: skip
    for action in actions:
        assert f"/{action}/" in urls


def test_no_admin_address_shows_anything_to_a_stranger(client: Client, one_of_each: Upstream) -> None:
    for url in admin_urls():
        if url in {"/admin/login/"} or "jsi18n" in url:
            continue
        response = client.get(url)
        assert response.status_code in {302, 403}, f"{url}: {response.status_code}"
        assert not response.content, url
