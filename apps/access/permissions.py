"""The check that every operators' way in shares: a verb asks it, whoever called the verb."""

from typing import Any

from apps.core.errors import PermissionDenied


def require(actor: Any, permission: str) -> None:
    """Raise PermissionDenied unless the person may. actor: a Django user, or None for the command line, which may."""
    if actor is not None and not actor.has_perm(permission):
        raise PermissionDenied(f"Your account may not do that: it needs the permission {permission}.")
