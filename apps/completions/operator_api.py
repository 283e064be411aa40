"""The ledger for the operators' scripts: /ops/api/ledger/, to read only."""

from typing import Any

import django_filters
from rest_framework import serializers, viewsets

from apps.completions.models import LedgerEntry


class LedgerEntrySerializer(serializers.ModelSerializer[LedgerEntry]):
    """A row with its cost in US dollars."""

    project = serializers.UUIDField(source="project_id")
    api_key = serializers.UUIDField(source="api_key_id")
    cost_usd = serializers.FloatField(read_only=True)

    class Meta:
        model = LedgerEntry
        fields = (
            "id", "created_at", "request_id", "project", "api_key", "end_user", "operation", "model", "provider",
            "upstream_model", "upstream_request_id", "attempt", "stream", "outcome", "status", "error_code",
            "input_tokens", "cached_tokens", "output_tokens", "cost_usd", "estimated", "latency_ms", "ttft_ms",
            "elapsed_ms", "task_id", "task_attempt",
        )  # fmt: skip


class LedgerFilter(django_filters.FilterSet):  # type: ignore[misc]
    """since is inside, until is not."""

    since = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="gte")
    until = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="lt")
    project = django_filters.UUIDFilter(field_name="project_id")
    api_key = django_filters.UUIDFilter(field_name="api_key_id")

    class Meta:
        model = LedgerEntry
        fields = ("request_id", "model", "provider", "outcome")


class LedgerViewSet(viewsets.ReadOnlyModelViewSet[LedgerEntry]):
    """Upstream requests, newest first.

    Filters: since, until, project, api_key, request_id, model, provider, outcome.
    """

    queryset: Any = LedgerEntry.objects.all()
    serializer_class = LedgerEntrySerializer
    filterset_class = LedgerFilter
