"""The audit over /ops/api/audit/: newest first, narrowed by who, what and when, to read only."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.access import audit, keys
from apps.access.models import AuditEntry, Project
from tests.operators import post, refusal, walk

pytestmark = pytest.mark.django_db
AUDIT = "/ops/api/audit/"


@pytest.fixture
def project(db: None) -> Project:
    return Project.objects.create(name="billing")


def test_entries_of_one_moment_are_paged_both_ways_each_once_without_a_count(
    admin_client: Client, project: Project
) -> None:
    # More than a thousand of one transaction, as a bulk redrive leaves them.
    audit.record_each("redrive", [project] * 1207)
    made = sorted((str(entry.pk) for entry in AuditEntry.objects.all()), reverse=True)
    assert AuditEntry.objects.values("at").distinct().count() == 1
    with CaptureQueriesContext(connection) as seen:
        pages = walk(admin_client, f"{AUDIT}?limit=250")
    assert [row["id"] for page in pages for row in page] == made
    assert not any("COUNT(" in query["sql"].upper() for query in seen)
    assert len(seen) <= 15 * 2 * len(pages)


def test_an_entry_says_who_did_what_and_why_without_a_secret(admin_client: Client, admin_user: Any) -> None:
    project = Project.objects.create(name="billing")
    key, secret = keys.create(project=project, name="cron", actor=admin_user, reason="ticket 7")
    response = admin_client.get(AUDIT)
    (row,) = response.json()["results"]
    assert (row["actor"], row["action"], row["object_type"], row["reason"]) == (
        "admin", "create", "access.apikey", "ticket 7",
    )  # fmt: skip
    assert (row["object_id"], row["after"]["digest"]) == (str(key.pk), "(set)")
    assert secret not in response.content.decode()
    assert key.digest not in response.content.decode()
    assert admin_client.get(f"{AUDIT}{row['id']}/").json() == row


def test_entries_are_narrowed(admin_client: Client, admin_user: Any, project: Project) -> None:
    audit.record("create", project, actor=admin_user)
    audit.record("stop", admin_user, actor=audit.CLOCK)
    hour_ago = (timezone.now() - timedelta(hours=1)).isoformat()
    for query, expected in (
        ({"actor": "admin"}, ["create"]),
        ({"actor": "clock"}, ["stop"]),
        ({"action": "create"}, ["create"]),
        ({"object_type": "auth.user"}, ["stop"]),
        ({"object_id": str(project.pk)}, ["create"]),
        ({"object_id": f"project_{project.pk.hex}"}, ["create"]),
        ({"since": hour_ago, "action": "stop"}, ["stop"]),
        ({"until": hour_ago}, []),
    ):
        rows = admin_client.get(AUDIT, query).json()["results"]
        assert [row["action"] for row in rows] == expected, query


def test_the_audit_is_for_those_who_may_look_and_nobody_changes_it(
    admin_client: Client, client: Client, django_user_model: Any, project: Project
) -> None:
    entry = audit.record("create", project)
    client.force_login(django_user_model.objects.create_user("person", is_staff=True))
    assert "access.view_auditentry" in refusal(client.get(AUDIT), 403, "permission_denied")["message"]
    refusal(Client().get(AUDIT), 401, "invalid_api_key")
    refusal(post(admin_client, AUDIT), 405, "method_not_allowed")
    for method in ("put", "patch", "delete"):
        refusal(getattr(admin_client, method)(f"{AUDIT}{entry.pk}/"), 405, "method_not_allowed")


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ("since=nonsense", 400, "since"),
        ("form=json", 400, "form"),
        ("actor=%00", 400, "actor"),
        ("object_id=%00", 400, "object_id"),
        ("cursor=cD1ub25zZW5zZQ==", 404, None),
        ("cursor=%ff", 404, None),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(admin_client: Client, query: str, status: int, param: str) -> None:
    code = "validation_error" if status == 400 else "not_found"
    refusal(admin_client.get(f"{AUDIT}?{query}"), status, code, param)
