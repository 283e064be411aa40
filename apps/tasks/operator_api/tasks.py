"""/ops/api/tasks/: the tasks of all projects, one with its attempts; cancelling, and looking at texts."""

from datetime import datetime
from typing import Any

import django_filters
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access.operator_api.decisions import DecisionBody, May, valid
from apps.tasks import kinds, operate, queries, search, states
from apps.tasks.errors import TaskNotFound
from apps.tasks.masking import masked_url
from apps.tasks.models import Task, shown_id


class MayCancel(May):
    """As the admin asks."""

    permissions = (operate.MAY_CANCEL, "tasks.view_task")


class MayReveal(May):
    """As the admin asks."""

    permissions = (operate.MAY_REVEAL, "tasks.view_task")


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
    parent_task = serializers.SerializerMethodField(help_text="task_..., or null.")
    callback_url = serializers.SerializerMethodField(help_text="Without its query.")

    class Meta:
        model = Task
        fields = (
            "id", "state", "kind", "queue", "priority", "project", "api_key", "request_id", "end_user", "created_at",
            "next_attempt_at", "started_at", "finished_at", "deadline", "cancel_requested", "attempt", "cycle",
            "charged_failures", "worker_losses", "parent_task", "callback_url",
        )  # fmt: skip

    def get_id(self, task: Task) -> str:
        """As clients know it."""
        return shown_id(task.pk)

    def get_parent_task(self, task: Task) -> str | None:
        """As clients know it."""
        return shown_id(task.parent_id) if task.parent_id else None

    def get_callback_url(self, task: Task) -> str:
        """Without what may be secret in it."""
        return masked_url(task.callback_url)


class TaskDetailSerializer(TaskSerializer):
    """With what was tried, the last hundred attempts, and the dead letter."""

    attempts = serializers.SerializerMethodField()
    dead_letter = serializers.SerializerMethodField(help_text="{id, state}, or null.")

    class Meta:
        model = Task
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
    changes = serializers.CharField(help_text="What edits have changed, as unified diffs; empty without any.")


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
        values = valid(DecisionBody, request)
        cancelled = operate.cancel(queries.task_id(pk), actor=request.user, reason=values["reason"])
        status = 200 if cancelled.state == states.CANCELLED else 202
        return Response(TaskSerializer(self.get_object()).data, status=status)

    @extend_schema(request=DecisionBody, responses=TaskTexts)
    @action(detail=True, methods=["post"], permission_classes=[MayReveal])
    def reveal(self, request: Request, pk: str) -> Response:
        """The task's texts. Each look is kept in the audit."""
        values = valid(DecisionBody, request)
        texts = operate.reveal(queries.task_id(pk), actor=request.user, reason=values["reason"])
        return Response(TaskTexts(texts).data, headers={"Cache-Control": "no-store"})
