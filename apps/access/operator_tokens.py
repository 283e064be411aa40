"""Makes, finds and prunes operators' tokens: what a script sends to `/ops/api/` instead of a login.

A token has the rights of its person, as they are at each request, and works as long as that person is an active member
of the staff. It is 256 random bits; only its SHA-512 is stored, and the token itself is returned once. To revoke one is
to delete its row.
"""

import re
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.utils import timezone
from knox import crypto

from apps.access import audit
from apps.access.models import OperatorToken
from apps.core.errors import Conflict, InvalidRequest, PermissionDenied

DEFAULT_DAYS, MOST_DAYS = 90, 3650
MAX_NAME = 64
PRUNED_AT_ONCE = 1000
_SHAPE = re.compile(r"rdo_[0-9a-f]{64}")


@transaction.atomic
def create(
    *, user: Any, name: str = "", days: int = DEFAULT_DAYS, actor: Any = None, reason: str = ""
) -> tuple[OperatorToken, str]:
    """A new token of the person and its secret. actor: None for the command line; people make their own only.

    Raises PermissionDenied, InvalidRequest, Conflict (the person has as many as one may have).
    """
    if actor is not None and actor.pk != user.pk:
        raise PermissionDenied("Everybody makes their own tokens.")
    if not (user.is_active and user.is_staff):
        raise InvalidRequest("Only active members of the staff have tokens.", param="user")
    if not 1 <= days <= MOST_DAYS:
        raise InvalidRequest(f"From 1 to {MOST_DAYS:,} days.", param="days")
    if len(name) > MAX_NAME:
        raise InvalidRequest(f"A name has at most {MAX_NAME} characters.", param="name")
    get_user_model()._default_manager.select_for_update(no_key=True).filter(pk=user.pk).values_list("pk").first()
    most = settings.REST_KNOX["TOKEN_LIMIT_PER_USER"]
    if OperatorToken.objects.filter(user=user, expiry__gt=timezone.now()).count() >= most:
        raise Conflict(f"{user.get_username()} has {most} tokens. Revoke one that is not needed any more.")
    made = OperatorToken.objects.create(user, expiry=timedelta(days=days), name=name.strip())
    token: OperatorToken = made[0]
    audit.record("create", token, actor=actor, reason=reason, after=audit.snapshot(token))
    return token, str(made[1])


def find(secret: str) -> OperatorToken | None:
    """The token of a secret with its person, if it works now. Changes nothing."""
    if not _SHAPE.fullmatch(secret):
        return None
    # By the whole digest: how long that takes tells nothing of a secret of 256 bits.
    works = {"expiry__gt": timezone.now(), "user__is_active": True, "user__is_staff": True}
    rows = OperatorToken.objects.filter(digest=crypto.hash_token(secret), **works).select_related("user")
    found: OperatorToken | None = rows.first()
    return found


def prune() -> int:
    """Delete a batch of tokens that have expired; how many."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM access_operatortoken WHERE id IN "
            "(SELECT id FROM access_operatortoken WHERE expiry < now() LIMIT %s FOR UPDATE SKIP LOCKED)",
            [PRUNED_AT_ONCE],
        )
        return int(cursor.rowcount)
