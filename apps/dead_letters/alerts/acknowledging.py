"""Acknowledges alerts: somebody knows, and nobody else needs to ask."""

from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from apps.access import audit
from apps.access.permissions import require
from apps.access.reasons import checked
from apps.dead_letters.errors import AlertHasMoved, AlertNotFound
from apps.dead_letters.models import Alert

MAY_ACKNOWLEDGE = "dead_letters.acknowledge_alert"


@transaction.atomic
def acknowledge(alert_id: UUID, *, actor: Any = None, reason: str = "") -> Alert:
    """Note who knows of a firing alert. actor: a Django user, or None for the command line.

    Raises AlertNotFound, AlertHasMoved (it is acknowledged, or has ended), PermissionDenied.
    """
    require(actor, MAY_ACKNOWLEDGE)
    moved = Alert.objects.filter(pk=alert_id, state=Alert.State.FIRING).update(
        state=Alert.State.ACKNOWLEDGED, acknowledged_at=Now(), acknowledged_by=audit.name_of(actor)
    )
    alert = Alert.objects.filter(pk=alert_id).first()
    if alert is None:
        raise AlertNotFound()
    if not moved:
        raise AlertHasMoved(f"This alert is {alert.state} already.")
    change = {"before": {"state": Alert.State.FIRING.value}, "after": {"state": alert.state}}
    audit.record("acknowledge", alert, actor=actor, reason=checked(reason), **change)
    return alert
