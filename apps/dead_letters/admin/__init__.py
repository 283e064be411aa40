"""The admin of dead letters, failure groups, bulk operations and alerts."""

from apps.dead_letters.admin import letters

__all__ = ["letters"]
