"""Reads where alerts stand, for the pages."""

from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Q, Window

from apps.dead_letters.alerts import channels
from apps.dead_letters.models import Alert
from apps.dead_letters.models.alerts import Severity

NEWEST = 5


@dataclass(frozen=True, slots=True)
class Standing:
    """firing, acknowledged: how many. critical: of those that fire. failing: channels that nothing reaches."""

    firing: int
    critical: int
    acknowledged: int
    newest: list[Alert]
    failing: list[str]

    @property
    def active(self) -> int:
        """Those that have not ended."""
        return self.firing + self.acknowledged


def standing(newest: int = NEWEST) -> Standing:
    """The active alerts in numbers, the newest of those that fire, and the failing channels."""
    is_firing, is_critical = Q(state=Alert.State.FIRING), Q(severity=Severity.CRITICAL)
    active = Alert.objects.exclude(state=Alert.State.ENDED).annotate(
        firing=Window(Count("pk", filter=is_firing)),
        critical=Window(Count("pk", filter=is_firing & is_critical)),
        in_all=Window(Count("pk")),
    )
    # `firing` comes after `acknowledged`.
    rows = list(active.order_by("-state", "-opened_at", "-id")[:newest])
    first: Any = rows[0] if rows else None
    return Standing(
        firing=first.firing if first else 0,
        critical=first.critical if first else 0,
        acknowledged=first.in_all - first.firing if first else 0,
        newest=[row for row in rows if row.state == Alert.State.FIRING],
        failing=channels.failing(),
    )
