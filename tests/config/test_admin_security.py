"""Logins, cookies and policies of the admin, and the errors of Django's side."""

from typing import Any

import pytest
from django.contrib.auth.hashers import identify_hasher
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from apps.access.models import AuditEntry
from config import csp

pytestmark = pytest.mark.django_db
LOGIN = "/admin/login/"
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def person(django_user_model: Any) -> Any:
    return django_user_model.objects.create_user("person", password="a right password", is_staff=True)


def log_in(client: Client, password: str, address: str = "192.0.2.1") -> Any:
    posted = {"username": "person", "password": password}
    return client.post(LOGIN, posted, headers=BROWSER, REMOTE_ADDR=address)


def test_the_fifth_refused_login_locks_that_user_out_from_that_address(client: Client, person: Any) -> None:
    answers = [log_in(client, "wrong").status_code for _ in range(5)]
    assert answers == [200, 200, 200, 200, 429]
    refused = log_in(client, "a right password")
    assert refused.status_code == 429
    assert "Too many refused logins" in refused.content.decode()
    assert "15 minutes" in refused.content.decode()
    assert refused["Retry-After"] == "900"
    assert log_in(client, "a right password", address="192.0.2.2").status_code == 302


def test_a_lockout_is_lifted_by_deleting_its_row(client: Client, admin_client: Client, person: Any) -> None:
    from axes.models import AccessAttempt

    for _ in range(5):
        log_in(client, "wrong")
    row = AccessAttempt.objects.get()
    assert row.username.encode() in admin_client.get(reverse("admin:axes_accessattempt_changelist")).content
    admin_client.post(reverse("admin:axes_accessattempt_delete", args=[row.pk]), {"post": "yes"})
    assert log_in(client, "a right password").status_code == 302
    assert AuditEntry.objects.get(action="delete").object_type == "axes.accessattempt"


def test_passwords_are_hashed_with_argon2(person: Any) -> None:
    assert identify_hasher(person.password).algorithm == "argon2"


@pytest.mark.parametrize("path", ["/admin/", LOGIN, "/admin/access/apikey/", "/ops/api/", "/nothing"])
def test_no_page_allows_inline_scripts_or_foreign_origins(admin_client: Client, path: str) -> None:
    policy = admin_client.get(path)["Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert "unsafe-inline" not in rules["script-src"]
    assert rules["frame-ancestors"] == "'none'"
    assert "http" not in policy
    is_admin = csp.is_admin(path)
    assert ("unsafe-eval" in policy) is is_admin
    assert ("unsafe-inline" in rules["style-src"]) is is_admin


def test_pages_of_the_admin_hold_no_inline_script(admin_client: Client) -> None:
    import re

    for path in ("/admin/", "/admin/access/apikey/add/", "/admin/completions/ledgerentry/", "/admin/auth/user/add/"):
        html = admin_client.get(path).content.decode()
        assert not re.search(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)", html), path
        assert not re.search(r"\son(click|load|change|submit)=", html), path


def test_a_form_without_its_token_is_refused_with_a_page(person: Any) -> None:
    client = Client(enforce_csrf_checks=True)
    response = client.post(LOGIN, {"username": "person", "password": "x"}, headers=BROWSER)
    assert response.status_code == 403
    assert "load the page again" in response.content.decode()


def test_own_actions_need_the_token_too(admin_user: Any, make_key: Any) -> None:
    key, _ = make_key()
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    url = reverse("admin:access_apikey_disable", args=[key.pk])
    assert client.post(url, {}).status_code == 403
    key.refresh_from_db()
    assert key.disabled_at is None


def test_an_unknown_address_is_a_page_for_people_and_a_body_for_programs(admin_client: Client) -> None:
    page = admin_client.get("/admin/nothing/", headers=BROWSER)
    assert page.status_code == 404
    assert "There is nothing at this address." in page.content.decode()
    for path, headers in (("/admin/nothing/", {}), ("/nothing", BROWSER)):
        error = admin_client.get(path, headers=headers).json()["error"]
        assert (error["code"], error["type"]) == ("not_found", "invalid_request_error")
        assert error["request_id"]


def test_a_bug_is_a_page_without_its_words(
    admin_user: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("secret inner words")

    monkeypatch.setattr("config.operations.context", broken)
    client = Client(raise_request_exception=False)
    client.force_login(admin_user)
    response = client.get("/admin/", headers=BROWSER)
    assert response.status_code == 500
    assert "secret inner words" not in response.content.decode()
    assert "Something went wrong on our side." in response.content.decode()


def test_a_database_that_is_away_is_503_with_a_page(admin_user: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import OperationalError

    def away(*_: Any) -> None:
        raise OperationalError("connection to host db.internal refused")

    client = Client(raise_request_exception=False)
    client.force_login(admin_user)
    monkeypatch.setattr("config.operations.context", away)
    response = client.get("/admin/", headers=BROWSER)
    assert response.status_code == 503
    assert "db.internal" not in response.content.decode()


def test_a_foreign_host_is_refused_with_the_body(client: Client) -> None:
    response = client.get("/admin/", headers={"Host": "evil.example"})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "validation_error"


def test_a_staff_user_cannot_make_itself_a_superuser(client: Client, person: Any, admin_user: Any) -> None:
    for codename in ("view_user", "change_user"):
        person.user_permissions.add(Permission.objects.get(codename=codename))
    client.force_login(person)
    url = reverse("admin:auth_user_change", args=[person.pk])
    response = client.post(url, {"username": "person", "is_staff": "on", "is_active": "on", "is_superuser": "on"})
    assert response.status_code == 302
    person.refresh_from_db()
    assert not person.is_superuser
    password = reverse("admin:auth_user_password_change", args=[admin_user.pk])
    new = {"usable_password": "true", "password1": "of my own making 1", "password2": "of my own making 1"}
    assert client.post(password, new).status_code == 403


def test_a_changed_password_is_audited_without_being_shown(admin_client: Client, person: Any) -> None:
    url = reverse("admin:auth_user_password_change", args=[person.pk])
    new = {"usable_password": "true", "password1": "of my own making 1", "password2": "of my own making 1"}
    assert admin_client.post(url, new).status_code == 302
    assert AuditEntry.objects.get(action="update").after == {"password": "(replaced)"}


def test_a_user_is_made_inactive_and_not_deleted(admin_client: Client, person: Any) -> None:
    url = reverse("admin:auth_user_delete", args=[person.pk])
    assert admin_client.post(url, {"post": "yes"}).status_code == 403


def test_nobody_sets_the_password_of_an_account_that_may_do_more(client: Client, django_user_model: Any) -> None:
    rights = Permission.objects.filter(codename__in=["view_user", "change_user"])
    clerk = django_user_model.objects.create_user("clerk", password="a right password", is_staff=True)
    clerk.user_permissions.set(rights)
    other = django_user_model.objects.create_user("other", password="a right password", is_staff=True)
    other.user_permissions.set(rights)
    client.force_login(clerk)
    url = reverse("admin:auth_user_password_change", args=[other.pk])
    assert client.get(url).status_code == 200
    other.user_permissions.add(Permission.objects.get(codename="change_provider"))
    assert client.get(url).status_code == 403


@pytest.mark.parametrize(
    "query", ["/admin/completions/ledgerentry/?outcome=%00", "/admin/completions/ledgerentry/?q=%00"]
)
def test_a_value_that_no_column_can_hold_is_no_fault_of_ours(client: Client, admin_user: Any, query: str) -> None:
    client.raise_request_exception = False
    client.force_login(admin_user)
    assert client.get(query, headers=BROWSER).status_code < 500
