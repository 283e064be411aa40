"""The circuit breakers for the operators' scripts: /ops/api/breakers/, to read only."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from apps.providers import breaker_board
from apps.providers.models import Provider


class BreakerSerializer(serializers.Serializer[Any]):
    """One (provider, upstream model)."""

    provider = serializers.CharField(source="provider.name")
    model = serializers.CharField()
    routes = serializers.ListField(child=serializers.CharField())
    state = serializers.ChoiceField(choices=sorted(breaker_board.WORDS))
    wait = serializers.FloatField(help_text="Seconds until a call may go.")
    failures = serializers.IntegerField(help_text="In a row.")


class BreakerViewSet(viewsets.GenericViewSet[Provider]):
    """Those in trouble first."""

    queryset: Any = Provider.objects.none()  # whose view permission is asked for
    serializer_class = BreakerSerializer
    pagination_class = None
    filter_backends = ()

    @extend_schema(responses=BreakerSerializer(many=True))
    def list(self, request: Request) -> Response:
        """All breakers."""
        return Response(BreakerSerializer(breaker_board.load(), many=True).data)
