"""/ops/api/queues/: what waits in each, pausing and resuming."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access import reasons
from apps.access.operator_api.decisions import DecisionBody, May, Strict, valid
from apps.tasks import queues
from apps.tasks.models import QueueState
from apps.tasks.operator_api.workers import Board


class MayPause(May):
    """As the admin asks."""

    permissions = (queues.MAY_PAUSE, "tasks.view_queuestate")


class PauseBody(Strict):
    """Why, and until when."""

    reason = serializers.CharField(max_length=reasons.MOST)
    resume_at = serializers.DateTimeField(required=False, allow_null=True, default=None)


class QueueSerializer(serializers.Serializer[Any]):
    """One queue now; counts end at `cap`. oldest: seconds. per_minute: of the last five minutes."""

    name = serializers.CharField()
    paused = serializers.BooleanField(source="is_paused")
    due = serializers.IntegerField()
    later = serializers.IntegerField()
    retrying = serializers.IntegerField()
    running = serializers.IntegerField()
    cap = serializers.IntegerField()
    oldest = serializers.FloatField(allow_null=True)
    per_minute = serializers.FloatField()
    paused_at = serializers.DateTimeField(allow_null=True)
    paused_by = serializers.CharField()
    reason = serializers.CharField()
    resume_at = serializers.DateTimeField(allow_null=True)


class QueueViewSet(Board):
    """All queues, in the order of their priority."""

    queryset: Any = QueueState.objects.none()  # whose view permission is asked for
    serializer_class = QueueSerializer
    lookup_value_regex = "[^/]+"

    @extend_schema(responses=QueueSerializer(many=True))
    def list(self, request: Request) -> Response:
        """What waits in each."""
        return Response(QueueSerializer(queues.overview(), many=True).data)

    @extend_schema(request=PauseBody, responses=QueueSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayPause])
    def pause(self, request: Request, pk: str) -> Response:
        """Let no worker take from it until resume_at, or for good; of a paused one: new terms."""
        queues.pause(pk, actor=request.user, **valid(PauseBody, request))
        return _queue(pk)

    @extend_schema(request=DecisionBody, responses=QueueSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayPause])
    def resume(self, request: Request, pk: str) -> Response:
        """Let workers take from it again. 409: it is not paused."""
        queues.resume(pk, actor=request.user, reason=valid(DecisionBody, request)["reason"])
        return _queue(pk)


def _queue(name: str) -> Response:
    return Response(QueueSerializer(next(one for one in queues.overview() if one.name == name)).data)
