"""Makes, rotates, disables and enables API keys. The secret is returned once and never stored."""

import hashlib
import secrets
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from apps.access import audit
from apps.access.models import ApiKey, Limit, Project

DEFAULT_REQUESTS_PER_MINUTE = 100
STRICT_REQUESTS_PER_MINUTE = 10
PREFIX_LENGTH = 10


def new_secret() -> str:
    """`rd_` and 256 random bits."""
    return f"rd_{secrets.token_urlsafe(32)}"


def digest(secret: str) -> str:
    """SHA-256 in hexadecimal. A plain hash suffices: the secret is random, not a password."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


@transaction.atomic
def create(
    *,
    project: Project,
    name: str,
    actor: Any = None,
    reason: str = "",
    limits: dict[str, Any] | None = None,
    **fields: Any,
) -> tuple[ApiKey, str]:
    """A new key of the project and its secret. limits: fields of `Limit`; 100 requests a minute unless it says."""
    secret = new_secret()
    key = ApiKey.objects.create(
        project=project, name=name, prefix=secret[:PREFIX_LENGTH], digest=digest(secret), **fields
    )
    Limit.objects.create(api_key=key, **{"requests_per_minute": DEFAULT_REQUESTS_PER_MINUTE, **(limits or {})})
    audit.record("create", key, actor=actor, reason=reason, after=audit.snapshot(key))
    return key, secret


@transaction.atomic
def rotate(*, key: ApiKey, overlap: timedelta, actor: Any = None, reason: str = "") -> str:
    """A new secret for the key; the old one works for `overlap` longer."""
    secret = new_secret()
    ApiKey.objects.filter(pk=key.pk).update(
        previous_digest=F("digest") if overlap else None,
        previous_expires_at=Now() + overlap if overlap else None,
        digest=digest(secret),
        prefix=secret[:PREFIX_LENGTH],
    )
    before = {"prefix": key.prefix}
    key.refresh_from_db()
    after = {"prefix": key.prefix, "previous_expires_at": str(key.previous_expires_at)}
    audit.record("rotate", key, actor=actor, reason=reason, before=before, after=after)
    return secret


@transaction.atomic
def set_disabled(*, key: ApiKey, disabled: bool, actor: Any = None, reason: str = "") -> bool:
    """Stop or allow a key's use on every process within a second. False: it was so already."""
    won = ApiKey.objects.filter(pk=key.pk, disabled_at__isnull=disabled).update(disabled_at=Now() if disabled else None)
    if won:
        audit.record("disable" if disabled else "enable", key, actor=actor, reason=reason)
    return bool(won)
