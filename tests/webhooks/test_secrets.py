"""A project's webhook secret: made, rotated, revoked; encrypted, audited and shown once."""

from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet
from django.core.management import CommandError, call_command
from django.db import connection

from apps.access.models import AuditEntry, Project
from apps.webhooks import retention, secrets
from apps.webhooks.errors import NoSecret, SecretExists
from apps.webhooks.models import WebhookSecret
from apps.webhooks.queries import due
from tests.races import together
from tests.time import age
from tests.webhooks.conftest import End, MakeProject, event_of

pytestmark = pytest.mark.django_db


def command(*args: str) -> tuple[str, str]:
    """(stdout, stderr)."""
    out, err = StringIO(), StringIO()
    call_command("webhook_secret", *args, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def keys(project: Project, end: End) -> list[str]:
    """What a delivery would sign with now."""
    found = due(event_of(end(project, "http://127.0.0.2/")).pk)
    assert found is not None
    return found.keys()


def stored() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT string_agg(s::text, ' ') FROM webhooks_webhooksecret s")
        return str(cursor.fetchone()[0])


def test_it_is_encrypted_and_audited_without_its_value(make_project: MakeProject, end: End) -> None:
    project, secret = make_project()
    assert keys(project, end) == [secret]
    assert secret not in stored()
    entry = AuditEntry.objects.get(object_type="webhooks.webhooksecret", object_name__contains=project.name)
    assert (entry.action, secret in str(entry.after)) == ("create", False)
    with pytest.raises(SecretExists):
        secrets.create(project=project)


def test_a_rotated_one_signs_until_its_time_is_over(make_project: MakeProject, end: End) -> None:
    project, old = make_project()
    new = secrets.rotate(project=project)
    assert keys(project, end) == [new, old]
    row = WebhookSecret.objects.get(project=project)
    assert row.previous_expires_at is not None
    assert row.rotated_at is not None
    assert row.previous_expires_at - row.rotated_at == timedelta(hours=24)
    age(row, hours=25)
    assert keys(project, end) == [new]
    retention.prune()
    row.refresh_from_db()
    assert (row.previous, row.previous_expires_at, row.secret) == ("", None, new)


def test_without_an_overlap_the_old_one_is_gone_at_once(make_project: MakeProject, end: End) -> None:
    project, _ = make_project()
    new = secrets.rotate(project=project, overlap=timedelta())
    assert keys(project, end) == [new]


def test_a_revoked_one_signs_nothing(make_project: MakeProject, end: End) -> None:
    project, _ = make_project()
    secrets.revoke(project=project, reason="it leaked")
    assert keys(project, end) == []
    assert AuditEntry.objects.filter(action="revoke", reason="it leaked").count() == 1
    for verb in (secrets.revoke, secrets.rotate):
        with pytest.raises(NoSecret):
            verb(project=project)


@pytest.mark.django_db(transaction=True)
def test_of_eight_who_make_it_at_once_one_does() -> None:
    project = Project.objects.create(name=f"p-{uuid4().hex[:12]}")
    results = together(8, lambda _: secrets.create(project=project))
    made = [one for one in results if not isinstance(one, Exception)]
    assert len(made) == 1
    assert all(isinstance(one, SecretExists) for one in results if isinstance(one, Exception))
    assert WebhookSecret.objects.get(project=project).secret == made[0][1]


def test_the_ring_of_encryption_keys_can_be_rotated(make_project: MakeProject, settings: Any) -> None:
    project, old = make_project()
    new = secrets.rotate(project=project)
    fresh = Fernet.generate_key().decode()
    ring = [fresh, *settings.REDRIVE.encryption_keys]
    settings.REDRIVE = settings.REDRIVE.model_copy(update={"encryption_keys": ring})
    call_command("rotate_encryption", stdout=StringIO())
    settings.REDRIVE = settings.REDRIVE.model_copy(update={"encryption_keys": [fresh]})
    row = WebhookSecret.objects.get(project=project)
    assert (row.secret, row.previous) == (new, old)


def test_the_command_prints_the_secret_alone_as_the_last_line(end: End) -> None:
    project = Project.objects.create(name="invoices")
    out, err = command("create", "--project", "invoices")
    secret = out.splitlines()[-1]
    assert keys(project, end) == [secret]
    assert secret not in err
    rotated = command("rotate", "--project", "invoices", "--overlap", "1")[0].strip()
    assert keys(project, end) == [rotated, secret]
    assert command("revoke", "--project", "invoices")[0] == ""
    assert keys(project, end) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("create", "--project", "nobody"), "nobody"),
        (("rotate", "--project", "invoices"), "create"),
        (("revoke", "--project", "invoices"), "create"),
        (("rotate", "--project", "invoices", "--overlap", "-1"), "--overlap"),
        (("rotate", "--project", "invoices", "--overlap", "9999"), "--overlap"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: tuple[str, ...], named: str) -> None:
    Project.objects.create(name="invoices")
    with pytest.raises(CommandError, match=named):
        command(*arguments)
    assert not WebhookSecret.objects.exists()
