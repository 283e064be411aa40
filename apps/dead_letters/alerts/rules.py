"""The rules that every installation begins with. They may be changed and disabled, not deleted."""

from typing import Any

from django.apps import apps as installed

from apps.dead_letters.models import AlertRule
from apps.dead_letters.models.alerts import Severity

HOUR = 3600
Event = AlertRule.Event

DEFAULTS: dict[str, dict[str, Any]] = {
    "New failure group": {"event": Event.NEW_GROUP, "severity": Severity.WARNING},
    "Regressed failure group": {"event": Event.REGRESSED, "severity": Severity.WARNING},
    "10 failures of one kind within 1 hour": {
        "event": Event.RATE, "severity": Severity.CRITICAL, "threshold": 10, "window": HOUR,
    },
    "Letter open for more than a day": {
        "event": Event.OLDEST_OPEN, "severity": Severity.WARNING, "age": 24 * HOUR, "throttle": 24 * HOUR,
    },
    "Queue paused for more than 1 hour": {"event": Event.QUEUE_PAUSED, "severity": Severity.WARNING, "age": HOUR},
    "Clock fails": {"event": Event.CLOCK_SILENT, "severity": Severity.CRITICAL, "age": 30},
    "Nobody works": {"event": Event.WORKERS_SILENT, "severity": Severity.CRITICAL, "age": 60},
    "Circuit breaker open": {"event": Event.BREAKER_OPEN, "severity": Severity.WARNING},
}  # fmt: skip


def is_default(rule: AlertRule) -> bool:
    """Whether it is one of ours: it would come back with the next migration if it were deleted or renamed."""
    return rule.name in DEFAULTS


def insert_missing(sender: Any, *, using: str, apps: Any = installed, **_: Any) -> None:
    """Receiver of post_migrate: adds those whose names are not there; what is there stays as people made it."""
    try:
        model = apps.get_model("dead_letters", "AlertRule")
    except LookupError:  # migrated back to before there were any
        return
    rows = [model(name=name, **fields) for name, fields in DEFAULTS.items()]
    model._default_manager.using(using).bulk_create(rows, ignore_conflicts=True)
