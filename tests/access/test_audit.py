"""The audit: appended, never changed, without secrets."""

import contextvars
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction

from apps.access import audit
from apps.access.models import AuditEntry, Project
from apps.core import request_context
from apps.core.request_context import RequestContext
from apps.providers.models import ModelRoute, Provider
from tests.conftest import MakeKey

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "statement",
    ["UPDATE access_auditentry SET reason = 'x'", "DELETE FROM access_auditentry"],
)
def test_the_database_refuses_to_change_the_audit(statement: str) -> None:
    audit.record("create", Project.objects.create(name="p"))
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert AuditEntry.objects.count() == 1


def test_only_the_fields_that_differ_are_kept() -> None:
    project = Project.objects.create(name="p")
    before = audit.snapshot(project)
    project.store_bodies = True
    entry = audit.record("update", project, before=before, after=audit.snapshot(project))
    assert (entry.before, entry.after) == ({"store_bodies": False}, {"store_bodies": True})


def test_of_a_secret_only_whether_it_is_set_is_kept() -> None:
    provider = Provider(name="p", base_url="http://localhost/v1", api_key="sk-very-secret", headers="X-Key: hidden")
    shown = audit.snapshot(provider)
    assert (shown["api_key"], shown["headers"]) == ("(set)", "(set)")
    provider.api_key = ""
    assert audit.snapshot(provider)["api_key"] == "(empty)"


def test_digests_of_keys_are_kept_as_set_only(make_key: MakeKey) -> None:
    key, _ = make_key()
    shown = audit.snapshot(key)
    assert shown["digest"] == "(set)"
    assert key.digest not in str(shown)


def test_a_snapshot_is_plain_json(make_key: MakeKey) -> None:
    key, _ = make_key(allowed_models=["a", "b"])
    for row in (key, key.limit, key.project, ModelRoute(public_name="m", input_usd_per_million=1)):
        entry = audit.record("look", row, after=audit.snapshot(row))
        entry.refresh_from_db()
        assert isinstance(entry.after, dict)


def test_an_entry_outlives_what_it_speaks_of() -> None:
    project = Project.objects.create(name="gone")
    audit.record("delete", project)
    pk = str(project.pk)
    project.delete()
    entry = AuditEntry.objects.get()
    assert (entry.object_id, entry.object_name, entry.object_type) == (pk, "gone", "access.project")


def test_an_entry_holds_the_requests_id() -> None:
    project = Project.objects.create(name="p")

    def record() -> Any:
        request_context.enter(RequestContext("req_mine"))
        return audit.record("create", project)

    assert contextvars.copy_context().run(record).request_id == "req_mine"


def test_without_a_person_it_was_the_command_line() -> None:
    assert audit.record("create", Project.objects.create(name="p")).actor == "command line"
