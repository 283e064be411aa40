"""Makes, rotates and revokes the secret that a project's webhooks are signed with. It is returned once."""

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from apps.access import audit
from apps.access.models import Project
from apps.webhooks import signing
from apps.webhooks.errors import NoSecret, SecretExists
from apps.webhooks.models import WebhookSecret

OVERLAP = timedelta(hours=24)


@transaction.atomic
def create(*, project: Project, actor: Any = None, reason: str = "") -> tuple[WebhookSecret, str]:
    """The project's first secret. Raises SecretExists."""
    secret = signing.new_secret()
    # One statement: of two who make it at once, one wins.
    row = WebhookSecret(project=project, secret=secret)
    WebhookSecret.objects.bulk_create([row], ignore_conflicts=True)
    made = WebhookSecret.objects.filter(pk=row.pk).first()
    if made is None:
        raise SecretExists()
    audit.record("create", made, actor=actor, reason=reason, after=audit.snapshot(made))
    return made, secret


@transaction.atomic
def rotate(*, project: Project, overlap: timedelta = OVERLAP, actor: Any = None, reason: str = "") -> str:
    """A new secret; for `overlap` deliveries carry a signature of the old one too. Raises NoSecret."""
    secret = signing.new_secret()
    won = WebhookSecret.objects.filter(project=project).update(
        previous=F("secret") if overlap else "",
        previous_expires_at=Now() + overlap if overlap else None,
        secret=secret,
        rotated_at=Now(),
    )
    if not won:
        raise NoSecret()
    row = WebhookSecret.objects.get(project=project)
    audit.record("rotate", row, actor=actor, reason=reason, after={"previous_expires_at": str(row.previous_expires_at)})
    return secret


@transaction.atomic
def revoke(*, project: Project, actor: Any = None, reason: str = "") -> None:
    """Forget the secret: no delivery goes out until there is a new one. Raises NoSecret."""
    row = WebhookSecret.objects.select_for_update().filter(project=project).defer("secret", "previous").first()
    if row is None:
        raise NoSecret()
    audit.record("revoke", row, actor=actor, reason=reason)
    row.delete()
