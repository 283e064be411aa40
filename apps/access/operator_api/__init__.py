"""The audit for the operators' scripts, /ops/api/audit/, and what all addresses that act share."""

from apps.access.operator_api.audit import AuditViewSet

__all__ = ["AuditViewSet"]
