"""/ops/api/audit/: who did what to which object, when and why. To read only."""

import re
from typing import Any
from uuid import UUID

import django_filters
from django.db.models import QuerySet
from rest_framework import serializers, viewsets

from apps.access.models import AuditEntry

_SHOWN_ID = re.compile(r"[a-z]+_([0-9a-f]{32})")


class AuditEntrySerializer(serializers.ModelSerializer[AuditEntry]):
    """One decision. before, after: the fields that it changed; of a secret only that it was set."""

    before = serializers.JSONField(allow_null=True)
    after = serializers.JSONField(allow_null=True)

    class Meta:
        model = AuditEntry
        fields = (
            "id", "at", "actor", "action", "object_type", "object_id", "object_name", "reason", "before", "after",
            "request_id",
        )  # fmt: skip


class AuditFilter(django_filters.FilterSet):  # type: ignore[misc]
    """since is inside, until is not."""

    actor = django_filters.CharFilter(help_text="A user's name, `clock`, or `command line`.")
    action = django_filters.CharFilter(help_text="Such as redrive, discard, create, start, reveal.")
    object_type = django_filters.CharFilter(help_text="Such as dead_letters.deadletter.")
    object_id = django_filters.CharFilter(method="by_object", help_text="As in the entry; also letter_..., task_....")
    since = django_filters.IsoDateTimeFilter(field_name="at", lookup_expr="gte")
    until = django_filters.IsoDateTimeFilter(field_name="at", lookup_expr="lt")

    class Meta:
        model = AuditEntry
        fields = ()

    def by_object(self, rows: "QuerySet[AuditEntry]", name: str, value: str) -> "QuerySet[AuditEntry]":
        """The entries of one object."""
        shown = _SHOWN_ID.fullmatch(value)
        return rows.filter(object_id=str(UUID(shown[1])) if shown else value)


class AuditViewSet(viewsets.ReadOnlyModelViewSet[AuditEntry]):
    """The audit, newest first. Filters: actor, action, object_type, object_id, since, until."""

    queryset: Any = AuditEntry.objects.all()
    serializer_class = AuditEntrySerializer
    filterset_class = AuditFilter
    page_order = ("-at", "-id")
