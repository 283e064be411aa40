"""The admin of webhooks, through Django's test client."""

import re
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from apps.access.models import AuditEntry, Project
from apps.tasks.models import Task
from apps.webhooks import disabled
from apps.webhooks.models import DisabledUrl, WebhookAttempt, WebhookSecret
from tests.webhooks.conftest import End, MakeProject, event_of

pytestmark = pytest.mark.django_db
URL = "http://127.0.0.2:1/hook?token=1"


def page(name: str, *args: Any) -> str:
    return reverse(f"admin:webhooks_{name}", args=args)


def act(client: Client, model: str, row: Any, action: str, **posted: str) -> Any:
    """POST an action's page, after a look at it that changes nothing."""
    url = f"{page(f'{model}_changelist')}{row.pk}/{action}/"
    assert client.get(url).status_code == 200
    return client.post(url, {"reason": "because", **posted})


def shown_secret(response: Any) -> str:
    assert "no-store" in response["Cache-Control"]
    html = response.content.decode()
    found = re.search(r'value="(whsec_[\w+/]{43}=)"', html)
    assert found, html
    assert "REDRIVE_API_KEY" not in html
    return found.group(1)


def test_a_new_secret_is_shown_once(admin_client: Client) -> None:
    project = Project.objects.create(name="research")
    response = admin_client.post(page("webhooksecret_add"), {"project": str(project.pk), "audit_reason": "receivers"})
    secret = shown_secret(response)
    row = WebhookSecret.objects.get(project=project)
    assert row.secret == secret
    for url in (page("webhooksecret_change", row.pk), page("webhooksecret_changelist")):
        html = admin_client.get(url).content.decode()
        assert "research" in html
        assert secret not in html
    entry = AuditEntry.objects.get(object_id=str(row.pk))
    assert (entry.action, entry.reason) == ("create", "receivers")
    assert secret not in f"{entry.before} {entry.after}"
    again = admin_client.post(page("webhooksecret_add"), {"project": str(project.pk)})
    assert (again.status_code, "already exists" in again.content.decode()) == (200, True)


def test_a_secret_is_rotated_and_revoked(admin_client: Client, make_project: MakeProject) -> None:
    project, old = make_project()
    row = WebhookSecret.objects.get(project=project)
    new = shown_secret(act(admin_client, "webhooksecret", row, "rotate", overlap="1"))
    row.refresh_from_db()
    assert (row.secret, row.previous) == (new, old)
    response = act(admin_client, "webhooksecret", row, "revoke")
    assert response.status_code == 302
    assert not WebhookSecret.objects.exists()
    actions = list(AuditEntry.objects.filter(reason="because").order_by("at").values_list("action", flat=True))
    assert actions == ["rotate", "revoke"]
    assert old not in str(AuditEntry.objects.values_list("before", "after"))


def test_an_event_is_shown_with_its_tries_and_without_its_body(
    admin_client: Client, make_project: MakeProject, end: End
) -> None:
    project, _ = make_project()
    event = event_of(end(project, URL, result='{"content": "private words"}'))
    attempt = WebhookAttempt.objects.create(
        event_id=event.pk,
        project=project,
        task_id=event.task_id,
        delivery_id=event.delivery_id,
        number=1,
        type=event.type,
        url=URL,
        duration_ms=12,
        status_code=500,
        error="http_status",
        message="it answered 500",
        response="<script>alert(1)</script>",
    )
    html = admin_client.get(page("webhookevent_change", event.pk)).content.decode()
    assert f"evt_{event.pk.hex}" in html
    assert "it answered 500" in html
    assert "private words" not in html
    html = admin_client.get(page("webhookattempt_change", attempt.pk)).content.decode()
    assert "&lt;script&gt;alert(1)" in html
    assert "<script>alert(1)" not in html
    for url in (page("webhookevent_changelist"), page("webhookattempt_changelist")):
        assert project.name in admin_client.get(url).content.decode()
    listed = admin_client.get(page("webhookevent_changelist"), {"delivered": "yes"}).content.decode()
    assert f"evt_{event.pk.hex}" not in listed


def test_an_event_is_sent_again_and_that_is_audited(admin_client: Client, make_project: MakeProject, end: End) -> None:
    project, _ = make_project()
    event = event_of(end(project, URL))
    Task.objects.filter(pk=event.delivery_id).update(state="retrying")
    assert act(admin_client, "webhookevent", event, "redeliver").status_code == 302
    assert sorted(Task.objects.filter(kind="webhook_delivery").values_list("state", flat=True)) == [
        "cancelled",
        "pending",
    ]
    entry = AuditEntry.objects.get(action="redeliver")
    assert (entry.object_id, entry.reason) == (str(event.pk), "because")
    disabled.disable(project.pk, URL)
    response = act(admin_client, "webhookevent", event, "redeliver")
    assert response.status_code == 302
    assert AuditEntry.objects.filter(action="redeliver").count() == 1


def test_a_url_is_enabled_and_that_is_audited(admin_client: Client, make_project: MakeProject) -> None:
    project, _ = make_project()
    disabled.disable(project.pk, URL)
    row = DisabledUrl.objects.get()
    assert URL in admin_client.get(page("disabledurl_changelist")).content.decode()
    assert act(admin_client, "disabledurl", row, "enable").status_code == 302
    assert not DisabledUrl.objects.exists()
    assert AuditEntry.objects.get(action="enable").reason == "because"


def test_who_may_only_look_may_only_look(client: Client, make_project: MakeProject, end: End) -> None:
    project, _ = make_project()
    disabled.disable(project.pk, "http://other.example/")
    rows = {
        "webhooksecret": (WebhookSecret.objects.get(), ("rotate", "revoke")),
        "webhookevent": (event_of(end(project, URL)), ("redeliver",)),
        "disabledurl": (DisabledUrl.objects.get(), ("enable",)),
    }
    user = User.objects.create_user("viewer", password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client.force_login(user)
    for model, (row, actions) in rows.items():
        assert client.get(page(f"{model}_change", row.pk)).status_code == 200
        for action in actions:
            url = f"{page(f'{model}_changelist')}{row.pk}/{action}/"
            assert client.post(url, {"reason": "", "overlap": "0"}).status_code == 403, url
    assert AuditEntry.objects.exclude(action="create").count() == 0
