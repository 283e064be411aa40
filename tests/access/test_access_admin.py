"""The admin of projects, API keys and the audit, through Django's test client."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from apps.access import authentication, keys
from apps.access.models import ApiKey, AuditEntry, Limit, Project
from tests.conftest import MakeKey

pytestmark = pytest.mark.django_db
NO_INLINES = {f"{name}-{count}_FORMS": "0" for name in ("limit", "api_keys") for count in ("TOTAL", "INITIAL")}


@pytest.fixture
def project() -> Project:
    return Project.objects.create(name="research")


def page(name: str, *args: Any) -> str:
    return reverse(f"admin:access_{name}", args=args)


def shown_secret(html: str) -> str:
    found = re.search(r'value="(rd_[\w-]{43})"', html)
    assert found, "no secret on the page"
    return found.group(1)


def make_in_admin(client: Client, project: Project, **fields: Any) -> tuple[ApiKey, str]:
    posted = {"project": str(project.pk), "name": "ci", "requests_per_minute": "100", **fields}
    response = client.post(page("apikey_add"), posted)
    assert response.status_code == 200, response.headers
    assert "no-store" in response["Cache-Control"]
    return ApiKey.objects.get(name="ci"), shown_secret(response.content.decode())


def test_a_new_key_shows_its_secret_once_and_works(admin_client: Client, project: Project) -> None:
    key, secret = make_in_admin(admin_client, project, allowed_models="gpt-*, o3")
    caller = authentication.find(keys.digest(secret))
    assert caller is not None
    assert caller.project_id == project.pk
    assert caller.allowed_models == ("gpt-*", "o3")
    again = admin_client.get(page("apikey_change", key.pk)).content.decode()
    assert secret not in again
    assert key.digest not in again


def test_a_new_key_has_100_requests_a_minute_unless_told_otherwise(admin_client: Client, project: Project) -> None:
    form = admin_client.get(page("apikey_add")).content.decode()
    assert re.search(r'name="requests_per_minute" value="100"', form)
    key, _ = make_in_admin(admin_client, project, requests_per_minute="7", monthly_budget_usd="20")
    assert (key.limit.requests_per_minute, key.limit.monthly_budget_usd) == (7, 20)


def test_a_new_key_is_audited_once_with_its_reason_and_without_its_digest(
    admin_client: Client, admin_user: Any, project: Project
) -> None:
    key, secret = make_in_admin(admin_client, project, audit_reason="for the nightly build")
    entry = AuditEntry.objects.get(object_id=str(key.pk))
    assert (entry.action, entry.actor, entry.reason) == ("create", admin_user.username, "for the nightly build")
    assert key.digest not in str(entry.after)
    assert secret not in str(entry.after)
    assert LogEntry.objects.filter(object_id=str(key.pk)).count() == 1


def test_a_refused_form_makes_no_key_and_no_audit(admin_client: Client, project: Project) -> None:
    response = admin_client.post(page("apikey_add"), {"project": str(project.pk), "name": ""})
    assert response.status_code == 200
    assert not ApiKey.objects.exists()
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize(("overlap", "works"), [("24", True), ("0", False)])
def test_a_rotated_keys_old_secret_works_as_long_as_was_chosen(
    admin_client: Client, make_key: MakeKey, overlap: str, works: bool
) -> None:
    key, old = make_key()
    asked = admin_client.get(page("apikey_rotate", key.pk))
    assert asked.status_code == 200
    assert authentication.find(keys.digest(old)) is not None
    response = admin_client.post(page("apikey_rotate", key.pk), {"overlap": overlap, "reason": "leaked"})
    new = shown_secret(response.content.decode())
    assert "no-store" in response["Cache-Control"]
    assert authentication.find(keys.digest(new)) is not None
    assert (authentication.find(keys.digest(old)) is not None) is works
    assert AuditEntry.objects.get(action="rotate").reason == "leaked"


def test_a_key_is_disabled_and_enabled_by_post_only(admin_client: Client, make_key: MakeKey) -> None:
    key, secret = make_key()
    admin_client.get(page("apikey_disable", key.pk))
    assert authentication.find(keys.digest(secret)) is not None
    admin_client.post(page("apikey_disable", key.pk), {})
    assert authentication.find(keys.digest(secret)) is None
    admin_client.post(page("apikey_enable", key.pk), {})
    assert authentication.find(keys.digest(secret)) is not None
    actions = AuditEntry.objects.filter(object_id=str(key.pk)).order_by("id").values_list("action", flat=True)
    assert list(actions) == ["create", "disable", "enable"]


def test_a_key_cannot_be_deleted(admin_client: Client, make_key: MakeKey) -> None:
    key, _ = make_key()
    assert admin_client.post(page("apikey_delete", key.pk), {"post": "yes"}).status_code == 403
    assert ApiKey.objects.filter(pk=key.pk).exists()


def test_a_changed_limit_is_audited_with_before_and_after(admin_client: Client, make_key: MakeKey) -> None:
    key, _ = make_key(10)
    limit = Limit.objects.get(api_key=key)
    posted = {
        "name": key.name, "allowed_models": "", "limit-TOTAL_FORMS": "1", "limit-INITIAL_FORMS": "1",
        "limit-0-id": str(limit.pk), "limit-0-api_key": str(key.pk), "limit-0-requests_per_minute": "20",
        "audit_reason": "more\x00 traffic",
    }  # fmt: skip
    assert admin_client.post(page("apikey_change", key.pk), posted).status_code == 302
    entry = AuditEntry.objects.get(action="update")
    assert entry.reason == "more traffic"
    assert entry.before["limits"][0]["requests_per_minute"] == 10
    assert entry.after["limits"][0]["requests_per_minute"] == 20
    assert entry.before.keys() == {"limits"}


def test_saving_without_a_change_is_not_audited(admin_client: Client, project: Project) -> None:
    posted = {"name": project.name, "body_retention_days": "30", **NO_INLINES}
    assert admin_client.post(page("project_change", project.pk), posted).status_code == 302
    assert not AuditEntry.objects.exists()


def test_a_project_with_keys_says_why_it_cannot_be_deleted(admin_client: Client, make_key: MakeKey) -> None:
    key, _ = make_key()
    html = admin_client.get(page("project_delete", key.project_id)).content.decode()
    assert "cannot be deleted" in html
    assert key.prefix in html
    admin_client.post(page("project_delete", key.project_id), {"post": "yes"})
    assert Project.objects.filter(pk=key.project_id).exists()


def test_a_deleted_project_leaves_its_last_state_in_the_audit(admin_client: Client, project: Project) -> None:
    admin_client.post(page("project_delete", project.pk), {"post": "yes", "audit_reason": "empty"})
    entry = AuditEntry.objects.get(action="delete")
    assert (entry.object_name, entry.before["name"], entry.reason) == ("research", "research", "empty")


def test_a_change_whose_audit_cannot_be_written_is_not_made(
    admin_client: Client, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("the audit is full")

    monkeypatch.setattr("apps.access.audit.record", refuse)
    posted = {"name": "renamed", "body_retention_days": "30", **NO_INLINES}
    with pytest.raises(RuntimeError):
        admin_client.post(page("project_change", project.pk), posted)
    project.refresh_from_db()
    assert project.name == "research"


def test_the_audit_can_be_read_and_not_changed(admin_client: Client, make_key: MakeKey) -> None:
    make_key()
    entry = AuditEntry.objects.get()
    assert admin_client.get(page("auditentry_change", entry.pk)).status_code == 200
    assert admin_client.get(page("auditentry_add")).status_code == 403
    assert admin_client.post(page("auditentry_change", entry.pk), {"actor": "me"}).status_code == 403
    assert admin_client.post(page("auditentry_delete", entry.pk), {"post": "yes"}).status_code == 403


def test_a_viewer_sees_keys_and_may_not_touch_them(client: Client, django_user_model: Any, make_key: MakeKey) -> None:
    from django.contrib.auth.models import Permission

    key, secret = make_key()
    viewer = django_user_model.objects.create_user("viewer", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_apikey"))
    client.force_login(viewer)
    html = client.get(page("apikey_change", key.pk)).content.decode()
    assert key.name in html
    for action in ("rotate", "disable", "enable"):
        assert page(f"apikey_{action}", key.pk) not in html
        assert client.post(page(f"apikey_{action}", key.pk), {"overlap": "0"}).status_code == 403
    assert authentication.find(keys.digest(secret)) is not None


def test_keys_are_filtered_by_whether_they_work(admin_client: Client, make_key: MakeKey) -> None:
    works, _ = make_key(expires_at=timezone.now() + timedelta(hours=1))
    expired, _ = make_key(expires_at=timezone.now() - timedelta(hours=1))
    disabled, _ = make_key(disabled_at=timezone.now())
    for status, key in (("works", works), ("expired", expired), ("disabled", disabled)):
        response = admin_client.get(page("apikey_changelist"), {"status": status})
        assert [row.pk for row in response.context["cl"].result_list] == [key.pk]
