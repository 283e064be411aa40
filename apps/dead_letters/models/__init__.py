"""Dead letters, the groups of failures they belong to, bulk operations on them, and alerts."""

from apps.dead_letters.models.alerts import Alert, AlertChannel, AlertDigest, AlertRule
from apps.dead_letters.models.bulk import BulkItem, BulkOperation, BulkSlot
from apps.dead_letters.models.groups import FailureGroup, GroupHour, GroupKey, GroupTally
from apps.dead_letters.models.letters import DeadLetter

__all__ = [
    "Alert", "AlertChannel", "AlertDigest", "AlertRule", "BulkItem", "BulkOperation", "BulkSlot", "DeadLetter",
    "FailureGroup", "GroupHour", "GroupKey", "GroupTally",
]  # fmt: skip
