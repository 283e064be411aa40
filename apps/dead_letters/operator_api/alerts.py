"""/ops/api/alerts/: what people were told of, and that somebody knows."""

from typing import Any
from uuid import UUID

import django_filters
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access.operator_api.decisions import DecisionBody, may, valid
from apps.dead_letters.alerts import acknowledging
from apps.dead_letters.errors import AlertNotFound
from apps.dead_letters.models import Alert, AlertRule
from apps.dead_letters.models.alerts import Severity

MayAcknowledge = may(acknowledging.MAY_ACKNOWLEDGE, "dead_letters.view_alert")


class AlertSerializer(serializers.ModelSerializer[Alert]):
    """Something that a rule found, from when it began to when it ended."""

    rule = serializers.CharField(source="rule.name", allow_null=True, default=None, help_text="Null: it is gone.")

    class Meta:
        model = Alert
        fields = (
            "id", "rule", "event", "severity", "subject", "title", "body", "state", "opened_at", "sent_at",
            "acknowledged_at", "acknowledged_by", "ended_at",
        )  # fmt: skip


class AlertFilter(django_filters.FilterSet):  # type: ignore[misc]
    """since is inside, until is not."""

    state = django_filters.ChoiceFilter(choices=Alert.State.choices)
    severity = django_filters.ChoiceFilter(choices=Severity.choices)
    event = django_filters.ChoiceFilter(choices=AlertRule.Event.choices)
    subject = django_filters.CharFilter(help_text="What it is about, such as a fingerprint.")
    since = django_filters.IsoDateTimeFilter(field_name="opened_at", lookup_expr="gte")
    until = django_filters.IsoDateTimeFilter(field_name="opened_at", lookup_expr="lt")

    class Meta:
        model = Alert
        fields = ()


class AlertViewSet(viewsets.ReadOnlyModelViewSet[Alert]):
    """Alerts, newest first. Filters: state, severity, event, subject, since, until."""

    queryset: Any = Alert.objects.select_related("rule")
    serializer_class = AlertSerializer
    filterset_class = AlertFilter
    page_order = ("-opened_at", "-id")

    @extend_schema(request=DecisionBody, responses=AlertSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayAcknowledge])
    def acknowledge(self, request: Request, pk: str) -> Response:
        """Say that you know. 409: somebody has said so, or it has ended."""
        acknowledging.acknowledge(_id(pk), actor=request.user, **valid(DecisionBody, request))
        return Response(AlertSerializer(self.get_object()).data)


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise AlertNotFound() from None
