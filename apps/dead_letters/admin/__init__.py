"""The admin of dead letters, failure groups, bulk operations and alerts."""

from apps.dead_letters.admin import alert_rules, alerts, bulk, groups, letters

__all__ = ["alert_rules", "alerts", "bulk", "groups", "letters"]
