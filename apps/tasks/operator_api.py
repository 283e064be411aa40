"""Tasks, queues, workers and the clock for the operators' scripts: /ops/api/{tasks,queues,workers,clock}/."""

from datetime import datetime
from typing import Any

import django_filters
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access.audited_admin import REASON_LENGTH
from apps.tasks import kinds, liveness, operate, queries, queues, search, states
from apps.tasks.errors import TaskNotFound
from apps.tasks.masking import masked_url
from apps.tasks.models import ClockBeat, QueueState, Task, WorkerPresence


class MayCancel(BasePermission):
    """The permission of its admin action."""

    permission = operate.MAY_CANCEL

    def has_permission(self, request: Request, view: Any) -> bool:
        """Of the person who is logged in."""
        return request.user.has_perm(self.permission)


class MayReveal(MayCancel):
    """The permission of its admin action."""

    permission = operate.MAY_REVEAL


class MayPause(MayCancel):
    """The permission of its admin action."""

    permission = queues.MAY_PAUSE


class Strict(serializers.Serializer[Any]):
    """A body whose unknown fields are refused."""

    def to_internal_value(self, data: Any) -> Any:
        """Raises ValidationError that names an unknown field."""
        if isinstance(data, dict):
            for name in data:
                if name not in self.fields and name != "csrfmiddlewaretoken":
                    raise serializers.ValidationError({str(name)[:100]: ["There is no such field."]})
        return super().to_internal_value(data)


class DecisionBody(Strict):
    """What is kept in the audit."""

    reason = serializers.CharField(max_length=REASON_LENGTH, required=False, allow_blank=True, default="")


class PauseBody(Strict):
    """Why, and until when."""

    reason = serializers.CharField(max_length=REASON_LENGTH)
    resume_at = serializers.DateTimeField(required=False, allow_null=True, default=None)


class AttemptSerializer(serializers.Serializer[Any]):
    """One try. wait: seconds before it began; seconds: how long it took."""

    number = serializers.IntegerField()
    cycle = serializers.IntegerField()
    outcome = serializers.CharField()
    started_at = serializers.DateTimeField()
    wait = serializers.FloatField()
    seconds = serializers.FloatField()
    worker = serializers.UUIDField()
    charged = serializers.BooleanField()
    error_code = serializers.CharField()
    error_status = serializers.IntegerField(allow_null=True)
    error_message = serializers.CharField()
    traceback = serializers.CharField()
    upstream = serializers.CharField()
    input_tokens = serializers.IntegerField()
    output_tokens = serializers.IntegerField()
    cost_usd = serializers.FloatField()


class TaskSerializer(serializers.ModelSerializer[Task]):
    """A task without its texts."""

    id = serializers.SerializerMethodField(help_text="task_...")
    project = serializers.UUIDField(source="project_id")
    api_key = serializers.UUIDField(source="api_key_id", allow_null=True)
    parent = serializers.SerializerMethodField(help_text="task_..., or null.")
    callback_url = serializers.SerializerMethodField(help_text="Without its query.")

    class Meta:
        model = Task
        fields = (
            "id", "state", "kind", "queue", "priority", "project", "api_key", "request_id", "end_user", "created_at",
            "next_attempt_at", "started_at", "finished_at", "deadline", "cancel_requested", "attempt", "cycle",
            "charged_failures", "worker_losses", "parent", "callback_url",
        )  # fmt: skip

    def get_id(self, task: Task) -> str:
        """As clients know it."""
        return queries.shown_id(task.pk)

    def get_parent(self, task: Task) -> str | None:
        """As clients know it."""
        return queries.shown_id(task.parent_id) if task.parent_id else None

    def get_callback_url(self, task: Task) -> str:
        """Without what may be secret in it."""
        return masked_url(task.callback_url)


class TaskDetailSerializer(TaskSerializer):
    """With what was tried, the last hundred attempts, and the dead letter."""

    attempts = serializers.SerializerMethodField()
    dead_letter = serializers.SerializerMethodField(help_text="{id, state}, or null.")

    class Meta(TaskSerializer.Meta):
        fields = (*TaskSerializer.Meta.fields, "attempts", "dead_letter")

    @extend_schema(responses=AttemptSerializer(many=True))
    def get_attempts(self, task: Task) -> list[dict[str, Any]]:
        """First to last."""
        return list(AttemptSerializer(search.timeline(task), many=True).data)

    def get_dead_letter(self, task: Task) -> dict[str, str] | None:
        """Of the last death."""
        found: dict[str, str] | None = queries.parts([task])["dead_letter"].get(task.pk)
        return found


class TaskTexts(serializers.Serializer[Any]):
    """What a client wrote and got; readable JSON as text."""

    payload = serializers.CharField()
    result = serializers.CharField()
    callback_url = serializers.CharField()


class TaskFilter(django_filters.FilterSet):  # type: ignore[misc]
    """since is inside, until is not."""

    state = django_filters.ChoiceFilter(choices=[(state, state) for state in states.ALL])
    queue = django_filters.ChoiceFilter(choices=[(name, name) for name in states.QUEUES])
    kind = django_filters.ChoiceFilter(choices=lambda: [(name, name) for name in kinds.names()])
    project = django_filters.UUIDFilter(field_name="project_id")
    since = django_filters.IsoDateTimeFilter(method="by_since")
    until = django_filters.IsoDateTimeFilter(method="by_until")

    class Meta:
        model = Task
        fields = ()

    def by_since(self, rows: "QuerySet[Task]", name: str, value: datetime) -> "QuerySet[Task]":
        """Accepted at or after it."""
        return search.created_between(rows, value, None)

    def by_until(self, rows: "QuerySet[Task]", name: str, value: datetime) -> "QuerySet[Task]":
        """Accepted before it."""
        return search.created_between(rows, None, value)


class TaskViewSet(viewsets.ReadOnlyModelViewSet[Task]):
    """Tasks of all projects, newest first. Filters: state, kind, queue, project, since, until."""

    queryset: Any = Task.objects.all()
    serializer_class = TaskSerializer
    filterset_class = TaskFilter
    page_order = ("-id",)

    def get_object(self) -> Task:
        """By its id, task_... Raises TaskNotFound."""
        self.check_permissions(self.request)
        found = self.queryset.filter(pk=queries.task_id(self.kwargs["pk"])).first()
        if found is None:
            raise TaskNotFound()
        task: Task = found
        return task

    @extend_schema(responses=TaskDetailSerializer)
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """One task with its attempts."""
        return Response(TaskDetailSerializer(self.get_object()).data)

    @extend_schema(request=DecisionBody, responses=TaskSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayCancel])
    def cancel(self, request: Request, pk: str) -> Response:
        """Call the task off. 202: it runs, and ends within a second. 409: it has ended already."""
        values = _valid(DecisionBody, request)
        cancelled = operate.cancel(queries.task_id(pk), actor=request.user, reason=values["reason"])
        status = 200 if cancelled.state == states.CANCELLED else 202
        return Response(TaskSerializer(self.get_object()).data, status=status)

    @extend_schema(request=DecisionBody, responses=TaskTexts)
    @action(detail=True, methods=["post"], permission_classes=[MayReveal])
    def reveal(self, request: Request, pk: str) -> Response:
        """The task's texts. Each look is kept in the audit."""
        values = _valid(DecisionBody, request)
        texts = operate.reveal(queries.task_id(pk), actor=request.user, reason=values["reason"])
        return Response(TaskTexts(texts).data, headers={"Cache-Control": "no-store"})


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


class _Board(viewsets.GenericViewSet[Any]):
    """A list that is short and read as a whole."""

    pagination_class = None
    filter_backends = ()


class QueueViewSet(_Board):
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
        queues.pause(pk, actor=request.user, **_valid(PauseBody, request))
        return _queue(pk)

    @extend_schema(request=DecisionBody, responses=QueueSerializer)
    @action(detail=True, methods=["post"], permission_classes=[MayPause])
    def resume(self, request: Request, pk: str) -> Response:
        """Let workers take from it again. 409: it is not paused."""
        queues.resume(pk, actor=request.user, reason=_valid(DecisionBody, request)["reason"])
        return _queue(pk)


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


class WorkerViewSet(_Board):
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


class ClockViewSet(_Board):
    """What the clock does, and when it last did."""

    queryset: Any = ClockBeat.objects.none()
    serializer_class = ChoreSerializer

    @extend_schema(responses=ChoreSerializer(many=True))
    def list(self, request: Request) -> Response:
        """By name."""
        return Response(ChoreSerializer(liveness.chores(), many=True).data)


def _valid(body: type[Strict], request: Request) -> dict[str, Any]:
    found = body(data=request.data)
    found.is_valid(raise_exception=True)
    values: dict[str, Any] = found.validated_data
    return values


def _queue(name: str) -> Response:
    return Response(QueueSerializer(next(one for one in queues.overview() if one.name == name)).data)
