"""Failure groups, dead letters, bulk operations and alerts for the operators' scripts, below /ops/api/."""

from apps.dead_letters.operator_api.alerts import AlertViewSet
from apps.dead_letters.operator_api.bulk import BulkViewSet
from apps.dead_letters.operator_api.groups import GroupViewSet
from apps.dead_letters.operator_api.letters import LetterViewSet

__all__ = ["AlertViewSet", "BulkViewSet", "GroupViewSet", "LetterViewSet"]
