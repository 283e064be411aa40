"""Reads where alerts stand, for the pages."""

from dataclasses import dataclass

from django.db import connection

from apps.dead_letters.alerts import channels
from apps.dead_letters.models import Alert

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
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT count(*) FILTER (WHERE state = 'firing'),
              count(*) FILTER (WHERE state = 'firing' AND severity = 'critical'),
              count(*) FILTER (WHERE state = 'acknowledged')
            FROM dead_letters_alert WHERE state <> 'ended'
            """
        )
        counts: tuple[int, int, int] = cursor.fetchone()
    firing = Alert.objects.filter(state=Alert.State.FIRING).order_by("-opened_at", "-id")
    return Standing(*counts, list(firing[:newest]) if counts[0] else [], channels.failing())
