"""The admin of dead letters, failure groups, bulk operations and alerts."""

from apps.dead_letters.admin import alert_rules, alerts, letters

__all__ = ["alert_rules", "alerts", "letters"]
