"""What a bulk operation has come to: how far it is, how long it may take, what was skipped and what failed again."""

from dataclasses import dataclass, field

from django.db import connection
from django.utils import timezone

from apps.completions.models import NUSD
from apps.dead_letters import bulk_states
from apps.dead_letters.models import BulkOperation, FailureGroup

SHOWN = 20


@dataclass(frozen=True, slots=True)
class Report:
    """Counts and causes. percent: of the items that are decided.

    seconds_left: at the present pace, longer where what is in flight holds it up; None if unknown. hold_left: seconds
    in which the start can be undone. failed_again: per group that redriven tasks died into (fingerprint, title, how
    many). skips: (cause, how many).
    """

    percent: int
    seconds_left: float | None
    hold_left: float
    cost_usd: float | None
    skips: list[tuple[str, int]] = field(default_factory=list)
    failed_again: list[tuple[str, str, int]] = field(default_factory=list)


def of(operation: BulkOperation) -> Report:
    """The report as of now."""
    decided = operation.skipped + (operation.released - operation.in_flight)
    now = timezone.now()
    hold = (operation.release_at - now).total_seconds() if operation.release_at is not None else 0.0
    return Report(
        percent=100 * decided // operation.total if operation.total else 0,
        seconds_left=_seconds_left(operation),
        hold_left=max(hold, 0.0) if operation.state == bulk_states.HOLDING else 0.0,
        cost_usd=operation.cost_nusd / NUSD if operation.cost_nusd is not None else None,
        skips=_skips(operation) if operation.skipped else [],
        failed_again=_failed_again(operation) if operation.failed else [],
    )


def _seconds_left(operation: BulkOperation) -> float | None:
    if not operation.is_active or operation.state == bulk_states.COUNTING:
        return None
    return operation.pending / operation.rate


def _skips(operation: BulkOperation) -> list[tuple[str, int]]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT cause, count(*) FROM dead_letters_bulkitem WHERE operation_id = %s AND state = 'skipped' "
            "GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT %s",
            [operation.pk, SHOWN],
        )
        return [(cause, found) for cause, found in cursor.fetchall()]


def _failed_again(operation: BulkOperation) -> list[tuple[str, str, int]]:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT l.group_id, count(*) FROM dead_letters_bulkitem i
            JOIN dead_letters_deadletter l ON l.task_id = i.task_id AND l.cycle = i.cycle + 1
            WHERE i.operation_id = %s AND i.outcome = 'dead' GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT %s
            """,
            [operation.pk, SHOWN],
        )
        rows: list[tuple[str, int]] = cursor.fetchall()
    titles = {group.pk: str(group) for group in FailureGroup.objects.filter(pk__in=[row[0] for row in rows])}
    return [(group_id, titles.get(group_id, group_id[:12]), found) for group_id, found in rows]
