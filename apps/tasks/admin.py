"""The admin of tasks, queues, workers and retry policies."""

import json
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html
from unfold.contrib.filters.admin import ChoicesDropdownFilter, DropdownFilter
from unfold.decorators import action, display

from apps.access import audit
from apps.access.audited_admin import AuditedModelAdmin, Decisions, ReadOnlyModelAdmin
from apps.access.keyset_admin import DayRangeFilter, KeysetModelAdmin, OwnerFilter
from apps.core.errors import RedriveError
from apps.tasks import kinds, states
from apps.tasks.lifecycle.cancel import cancel
from apps.tasks.models import QueueState, RetryPolicy, Task, TaskAttempt, TaskPayload, TaskResult, WorkerPresence

STATES = {
    "pending": "info", "running": "info", "retrying": "warning", "waiting": "info", "succeeded": "success",
    "dead": "danger", "cancelled": "warning",
}  # fmt: skip


class _NameFilter(DropdownFilter):
    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        """The rows with that name."""
        chosen = self.value()
        return queryset.filter(**{self.parameter_name: chosen}) if chosen and "\0" not in chosen else queryset


class KindFilter(_NameFilter):
    """By kind; the catalogue's, not the table's, which is long."""

    title = parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """All kinds."""
        return [(name, name) for name in kinds.names()]


class QueueFilter(_NameFilter):
    """By queue."""

    title = parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """All queues."""
        return [(name, name) for name in states.QUEUES]


@admin.register(Task)
class TaskAdmin(Decisions, KeysetModelAdmin):
    """Work that was accepted, and what became of it."""

    list_display = ("created_at", "shown_id", "shown_state", "kind", "queue", "project_name", "attempt", "due")
    list_filter = (
        ("state", ChoicesDropdownFilter),
        KindFilter,
        QueueFilter,
        ("project", OwnerFilter),
        ("created_at", DayRangeFilter),
    )
    search_fields = ("id__exact", "request_id__exact")
    search_help_text = "A whole task id without task_, or a whole request id"
    fieldsets = (
        (None, {"fields": ("shown_id", "shown_state", "kind", "queue", "priority", "project_name", "request_id")}),
        ("What was tried", {"fields": ("timeline", "attempt", "charged_failures", "worker_losses", "cycle", "error")}),
        ("Times", {"fields": ("created_at", "started_at", "finished_at", "next_attempt_at", "deadline", "due")}),
        ("Work", {"fields": ("payload", "result", "metadata", "callback_url", "end_user")}),
    )
    readonly_fields = ("shown_id", "shown_state", "project_name", "timeline", "due", "payload", "result")
    actions_detail = ("cancel_task",)

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Task]":
        """With the project by a query of its own."""
        found: QuerySet[Task] = super().get_queryset(request)
        return found.prefetch_related("project")

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> Any:
        """Only what is unfinished can be cancelled."""
        unfinished = Task.objects.filter(pk=object_id, state__in=states.UNFINISHED).exists()
        return super().get_actions_detail(request, object_id) if unfinished else []

    def has_cancel_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """May cancel."""
        return request.user.has_perm("tasks.change_task")

    @action(description="Cancel", url_path="cancel", permissions=["cancel"], icon="cancel")
    def cancel_task(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Call the task off."""
        task = self.get_object(request, unquote(object_id))
        if task is None:
            raise Http404
        if not self.has_cancel_permission(request):
            raise PermissionDenied

        def act(values: dict[str, Any]) -> None:
            try:
                with transaction.atomic():
                    cancelled = cancel(task.pk)
                    audit.record(
                        "cancel", task, actor=request.user, reason=values["reason"],
                        before={"state": task.state}, after={"state": cancelled.state, "cancel_requested": True},
                    )  # fmt: skip
            except RedriveError as error:
                messages.error(request, error.message)
            else:
                messages.success(request, "The task is cancelled, or ends within a second if it runs.")

        return self.decide(
            request,
            task,
            title="Cancel this task",
            explanation="What waits ends at once; what runs is told, and ends within a second. What it has spent stays "
            "spent. A cancelled task cannot be brought back.",
            submit="Cancel the task",
            act=act,
            danger=True,
        )

    @display(description="task")
    def shown_id(self, task: Task) -> str:
        """As clients know it."""
        return f"task_{task.pk.hex}"

    @display(description="state", label=STATES)
    def shown_state(self, task: Task) -> str:
        """In words."""
        return task.state

    @display(description="project")
    def project_name(self, task: Task) -> str:
        """Its name, or its id if it is gone."""
        return str(task._state.fields_cache.get("project") or task.project_id)

    @display(description="due")
    def due(self, task: Task) -> str:
        """When it is tried next."""
        if task.state not in states.DUE:
            return ""
        seconds = (task.next_attempt_at - timezone.now()).total_seconds()
        return "now" if seconds <= 0 else f"in {seconds:.0f} s"

    @display(description="attempts")
    def timeline(self, task: Task) -> str:
        """A line for each."""
        lines = [
            f"{row.number}. {row.started_at:%Y-%m-%d %H:%M:%S}  {row.outcome:<12} {row.upstream} {row.error_code} "
            f"{row.error_message[:200]}"
            for row in TaskAttempt.objects.filter(task_id=task.pk).order_by("number")
        ]
        return format_html("<pre>{}</pre>", "\n".join(lines) or "none has ended yet")

    @display(description="payload")
    def payload(self, task: Task) -> str:
        """Its shape, without its texts."""
        row = TaskPayload.objects.filter(task_id=task.pk).order_by("-revision").first()
        return format_html("<pre>{}</pre>", _masked(row.body) if row else "")

    @display(description="result")
    def result(self, task: Task) -> str:
        """Its shape, without its texts."""
        row = TaskResult.objects.filter(pk=task.pk).first()
        return format_html("<pre>{}</pre>", _masked(row.body) if row else "")


@admin.register(QueueState)
class QueueStateAdmin(AuditedModelAdmin):
    """Queues that are paused: make a row to pause one, delete it to go on."""

    list_display = ("name", "paused_at", "resume_at", "reason")
    fields = ("name", "paused_at", "resume_at", "reason")


@admin.register(WorkerPresence)
class WorkerPresenceAdmin(ReadOnlyModelAdmin):
    """Workers that have given a sign of life."""

    list_display = ("host", "pid", "queues", "in_flight", "slots", "started_at", "beat_at", "expires_at")
    ordering = ("host", "pid")


@admin.register(RetryPolicy)
class RetryPolicyAdmin(AuditedModelAdmin):
    """What differs from a kind's own retry policy; in force on every worker within a few seconds."""

    list_display = ("kind", "base", "factor", "cap", "max_retries", "park_limit")


def _masked(body: str) -> str:
    """Readable JSON with every text replaced by its length: payloads hold what clients wrote."""
    try:
        found = json.loads(body)
    except ValueError:
        return f"{len(body)} characters that are not JSON"
    return json.dumps(_mask(found), indent=2)[:20_000]


def _mask(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _mask(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_mask(part) for part in value[:50]]
    return f"({len(value)} characters)" if isinstance(value, str) else value
