"""Writes the audit: who did what to which object, when, why, and what it changed. Only ever appends."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import models
from django.forms.models import model_to_dict

from apps.access.models import AuditEntry
from apps.core import request_context
from apps.core.crypto import EncryptedTextField

SECRET_FIELDS = frozenset({"password", "digest", "previous_digest"})


@dataclass(frozen=True, slots=True)
class Process:
    """An actor that is no person at a keyboard. pk: of the person that it acts for, if there is one."""

    name: str
    pk: int | None = None

    def get_username(self) -> str:
        """As the audit names it."""
        return self.name


CLOCK = Process("clock")


def name_of(actor: Any) -> str:
    """As the audit and the rows that were decided name an actor: a Django user, a Process, or None."""
    return str(actor.get_username()) if actor is not None else "command line"


def record(
    action: str,
    target: models.Model,
    *,
    actor: Any = None,
    reason: str = "",
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> AuditEntry:
    """Append one entry, in the caller's transaction.

    actor: a Django user, a Process, or None for the command line. before, after: what `snapshot` gave; of both only the
    fields that differ are kept.
    """
    entry = _entry(action, target, actor=actor, reason=reason, before=before, after=after)
    entry.save(force_insert=True)
    return entry


def record_each(
    action: str,
    targets: Sequence[models.Model],
    *,
    actor: Any = None,
    reason: str = "",
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    """Append one entry for each of the rows, which all change in the same way; otherwise as `record`."""
    AuditEntry.objects.bulk_create(
        [_entry(action, target, actor=actor, reason=reason, before=before, after=after) for target in targets]
    )


def _entry(
    action: str,
    target: models.Model,
    *,
    actor: Any,
    reason: str,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
) -> AuditEntry:
    if before is not None and after is not None:
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        before = {name: value for name, value in before.items() if name in changed}
        after = {name: value for name, value in after.items() if name in changed}
    context = request_context.current_or_none()
    return AuditEntry(
        actor_id=getattr(actor, "pk", None),
        actor=name_of(actor),
        action=action,
        object_type=target._meta.label_lower,
        object_id=str(target.pk),
        object_name=str(target)[:200],
        reason=reason,
        before=before,
        after=after,
        request_id=context.request_id if context else "",
    )


def snapshot(target: models.Model) -> dict[str, Any]:
    """The fields of a row as JSON values; of a secret only whether it is set."""
    values = model_to_dict(target)
    for field in target._meta.concrete_fields:
        if isinstance(field, EncryptedTextField) or field.name in SECRET_FIELDS:
            values[field.name] = "(set)" if getattr(target, field.attname) else "(empty)"
    return {name: _as_json(value) for name, value in values.items()}


def _as_json(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _as_json(item) for key, item in value.items()}
    return str(value)
