"""The admin of dead letters, failure groups, bulk operations and alerts."""

from apps.dead_letters.admin import bulk, groups, letters

__all__ = ["bulk", "groups", "letters"]
