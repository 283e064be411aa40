"""Makes a bulk operation and freezes what it is about: answered at once, counted by the clock.

The letters that matched when it was made are its items; later ones are none of its business. Each of its groups is
kept for it: of two operations on one group the second is refused, or leaves that group out.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.core.exceptions import EmptyResultSet
from django.db import connection, transaction
from django.db.models.functions import Now

from apps.access import audit
from apps.access.permissions import require
from apps.core import failpoints
from apps.core.database import storable
from apps.core.errors import Conflict, InvalidRequest
from apps.dead_letters import bulk_states, search, states
from apps.dead_letters.bulk import estimate
from apps.dead_letters.errors import GroupIsTaken, GroupNotFound, OperationNotFound
from apps.dead_letters.models import BulkOperation, BulkSlot, FailureGroup
from apps.tasks import kinds

Action = BulkOperation.Action
PERMISSIONS = {
    Action.REDRIVE: "dead_letters.redrive_bulkoperation",
    Action.DISCARD: "dead_letters.discard_bulkoperation",
    Action.RESTORE: "dead_letters.discard_bulkoperation",
}
SOURCE_STATE = {Action.REDRIVE: states.OPEN, Action.DISCARD: states.OPEN, Action.RESTORE: states.DISCARDED}
RATES = {Action.REDRIVE: 20.0, Action.DISCARD: 1000.0, Action.RESTORE: 1000.0}  # letters a second
MOST_ACTIVE = 50
MOST_GROUPS = 1000  # that are named one by one; a query may cover more
DISABLED = "its API key is disabled"  # why letters are left alone
CHUNK = 20_000  # letters that are frozen at once

_FREEZE = """
WITH c AS MATERIALIZED ({letters}),
 slots AS (
  INSERT INTO dead_letters_bulkslot (group_id, operation_id) SELECT DISTINCT group_id, %s::uuid FROM c ORDER BY 1
  ON CONFLICT DO NOTHING RETURNING group_id)
INSERT INTO dead_letters_bulkitem (operation_id, letter_id, task_id, cycle, group_id, state, cause, outcome)
SELECT %s::uuid, i.id, i.task_id, i.cycle, i.group_id, CASE WHEN i.cause = '' THEN 'pending' ELSE 'skipped' END,
  i.cause, ''
FROM (
  SELECT c.*, CASE
    WHEN slots.group_id IS NULL AND s.operation_id IS DISTINCT FROM %s::uuid THEN 'another operation works on its group'
    WHEN %s AND NOT c.kind = ANY(%s) THEN 'no handler knows its kind'
    WHEN %s AND k.disabled_at IS NOT NULL THEN %s
    ELSE '' END AS cause
  FROM c LEFT JOIN slots ON slots.group_id = c.group_id
  LEFT JOIN dead_letters_bulkslot s ON s.group_id = c.group_id
  LEFT JOIN access_apikey k ON k.id = c.api_key_id) i
RETURNING letter_id, state
"""


@transaction.atomic
def create(
    action: str,
    *,
    groups: Sequence[str] = (),
    query: str = "",
    source: UUID | None = None,
    actor: Any = None,
) -> BulkOperation:
    """Make an operation on all letters that match groups, query and source, those that are given; it is counting.

    source: an operation whose discards are to be restored. Raises PermissionDenied, InvalidRequest (nothing is given,
    or not understood), GroupNotFound, GroupIsTaken, OperationNotFound, Conflict (too many operations are active).
    """
    if action not in Action.values:
        raise InvalidRequest(f"It is one of {', '.join(Action.values)}.", param="action")
    require(actor, PERMISSIONS[Action(action)])
    names = sorted({storable(name) for name in groups})
    if len(names) > MOST_GROUPS:
        raise InvalidRequest(f"At most {MOST_GROUPS:,} groups, or a search.", param="groups")
    parsed = search.parse(query)
    if not names and source is None and parsed.is_empty():
        raise InvalidRequest("Say which letters: groups, a search, or both. All of them: state:open.", param="groups")
    search.letters(parsed)  # which refuses what it does not understand
    if source is not None and not BulkOperation.objects.filter(pk=source).exists():
        raise OperationNotFound()
    found = {row.pk: row for row in FailureGroup.objects.filter(pk__in=names)}
    if missing := [name for name in names if name not in found]:
        raise GroupNotFound(f"There is no failure group {missing[0][:64]!r}.")
    if BulkOperation.objects.filter(state__in=bulk_states.ACTIVE).count() >= MOST_ACTIVE:
        raise Conflict(f"{MOST_ACTIVE} bulk operations are active. Finish or cancel some first.")
    operation = BulkOperation.objects.create(
        action=action,
        groups=names,
        query=query.strip(),
        source=source,
        title=_title(action, [str(found[name]) for name in names], query.strip(), source),
        created_by=audit.name_of(actor),
        actor_id=getattr(actor, "pk", None),
        rate=RATES[Action(action)],
    )
    _take_slots(operation, names)
    audit.record(
        "create", operation, actor=actor, after={"action": action, "groups": len(names), "query": query.strip()}
    )
    return operation


def count(operation: BulkOperation) -> bool:
    """Freeze the next items, and once there are no more, say what they are; whether that is so now.

    The caller holds the operation's row, and moves it then.
    """
    if _freeze(operation) == CHUNK:
        return False
    operation.breakdown, operation.cost_nusd = estimate.of(operation)
    operation.counted_at = Now()
    operation.save(update_fields=["breakdown", "cost_nusd", "counted_at"])
    return True


def _freeze(operation: BulkOperation) -> int:
    rows = search.letters(search.parse(operation.query), now=operation.created_at)
    rows = rows.filter(state=SOURCE_STATE[Action(operation.action)], created_at__lte=operation.created_at)
    if operation.groups:
        rows = rows.filter(group_id__in=operation.groups)
    if operation.source is not None:
        rows = rows.filter(operation_id=operation.source)
    if operation.counted_to is not None:
        rows = rows.filter(pk__gt=operation.counted_to)
    names = ("id", "task_id", "cycle", "group_id", "kind", "api_key_id")
    try:
        selected, parameters = rows.order_by("pk").values_list(*names)[:CHUNK].query.sql_with_params()
    except EmptyResultSet:  # words that no group has: Django knows without asking
        return 0
    redrives = operation.action == Action.REDRIVE
    own = operation.pk
    with connection.cursor() as cursor:
        cursor.execute(
            _FREEZE.format(letters=selected),
            [*parameters, own, own, own, redrives, kinds.names(), redrives, DISABLED],
        )
        frozen = cursor.fetchall()
    failpoints.hit("bulk.after_freeze")
    if frozen:
        operation.counted_to = max(row[0] for row in frozen)
        operation.total += len(frozen)
        operation.skipped += sum(row[1] == bulk_states.SKIPPED for row in frozen)
        operation.save(update_fields=["counted_to", "total", "skipped"])
    return len(frozen)


def _take_slots(operation: BulkOperation, names: Sequence[str]) -> None:
    if not names:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO dead_letters_bulkslot (group_id, operation_id) SELECT n, %s FROM unnest(%s::text[]) AS n
            ORDER BY n ON CONFLICT DO NOTHING RETURNING group_id
            """,
            [operation.pk, list(names)],
        )
        taken = {row[0] for row in cursor.fetchall()}
    if lost := [name for name in names if name not in taken]:
        other = BulkSlot.objects.filter(group_id=lost[0]).values_list("operation_id", flat=True).first()
        raise GroupIsTaken(
            f"Another bulk operation works on {FailureGroup.objects.get(pk=lost[0])}: wait for it, or cancel it.",
            details={"group": lost[0], "operation": str(other) if other else None},
        )


def _title(action: str, groups: Sequence[str], query: str, source: UUID | None) -> str:
    parts = []
    if groups:
        more = f" and {len(groups) - 1} more" if len(groups) > 1 else ""
        parts.append(f"{groups[0]}{more}")
    if query:
        parts.append(query)
    if source is not None:
        parts.append("what an earlier operation discarded")
    return f"{action.capitalize()}: {', '.join(parts)}"[:300]
