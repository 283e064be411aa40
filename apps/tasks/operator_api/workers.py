"""/ops/api/workers/ and /ops/api/clock/: who works, who has fallen silent. To read only."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from apps.tasks import liveness
from apps.tasks.models import ClockBeat, WorkerPresence


class Board(viewsets.GenericViewSet[Any]):
    """A list that is short and read as a whole."""

    pagination_class = None
    filter_backends = ()


class WorkerSerializer(serializers.Serializer[Any]):
    """A worker. age: seconds since its last beat. waiting: queues with due work although it has nothing to do."""

    id = serializers.UUIDField()
    host = serializers.CharField()
    pid = serializers.IntegerField()
    state = serializers.ChoiceField(choices=["working", "idle", "stuck", "silent"])
    queues = serializers.ListField(child=serializers.CharField())
    waiting = serializers.ListField(child=serializers.CharField())
    slots = serializers.IntegerField()
    in_flight = serializers.IntegerField()
    started_at = serializers.DateTimeField()
    age = serializers.FloatField()


class WorkerViewSet(Board):
    """Workers that have given a sign of life."""

    queryset: Any = WorkerPresence.objects.none()
    serializer_class = WorkerSerializer

    @extend_schema(responses=WorkerSerializer(many=True))
    def list(self, request: Request) -> Response:
        """By host and process."""
        return Response(WorkerSerializer(liveness.workers(), many=True).data)


class ChoreSerializer(serializers.Serializer[Any]):
    """A chore of the clock. age: seconds since it was last done, null: never. every: seconds."""

    name = serializers.CharField()
    state = serializers.ChoiceField(choices=["ok", "failing", "late", "never"])
    every = serializers.FloatField()
    age = serializers.FloatField(allow_null=True)
    clock = serializers.CharField()
    error = serializers.CharField()


class ClockViewSet(Board):
    """What the clock does, and when it last did."""

    queryset: Any = ClockBeat.objects.none()
    serializer_class = ChoreSerializer

    @extend_schema(responses=ChoreSerializer(many=True))
    def list(self, request: Request) -> Response:
        """By name."""
        return Response(ChoreSerializer(liveness.chores(), many=True).data)
