"""The circuit breakers for the operators' scripts: /ops/api/breakers/, and closing them by hand."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access.operator_api.decisions import DecisionBody, may, valid
from apps.core.errors import InvalidRequest, NotFound
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


class ResetBody(DecisionBody):
    """Which, and why."""

    model = serializers.CharField(
        max_length=128, required=False, default="", help_text="The upstream's model. Without it: all of the provider."
    )


class BreakerViewSet(viewsets.GenericViewSet[Provider]):
    """Those in trouble first."""

    queryset: Any = Provider.objects.none()  # whose view permission is asked for
    serializer_class = BreakerSerializer
    pagination_class = None
    filter_backends = ()
    lookup_field = "name"
    lookup_url_kwarg = "provider"
    lookup_value_regex = "[^/]+"

    @extend_schema(responses=BreakerSerializer(many=True))
    def list(self, request: Request) -> Response:
        """All breakers."""
        return Response(BreakerSerializer(breaker_board.load(), many=True).data)

    @extend_schema(request=ResetBody, responses=BreakerSerializer(many=True))
    @action(detail=True, methods=["post"], permission_classes=[may(breaker_board.MAY_RESET, "providers.view_provider")])
    def reset(self, request: Request, provider: str) -> Response:
        """Close the breakers of a provider, by its name, and let calls go there at once.

        If it still fails they open again. Answers with all breakers of the provider.
        """
        values = valid(ResetBody, request)
        found = Provider.objects.defer("api_key", "headers").filter(name=provider).first()
        if found is None:
            raise NotFound("There is no such provider.")
        models = breaker_board.models_of(found)
        if values["model"] and values["model"] not in models:
            raise InvalidRequest(f"No route uses this model there. There are: {', '.join(models)}.", param="model")
        chosen = [values["model"]] if values["model"] else models
        breaker_board.reset(found, chosen, actor=request.user, reason=values["reason"])
        return Response(BreakerSerializer(breaker_board.load(provider=found), many=True).data)
