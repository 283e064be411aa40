"""The admin of webhook events: what was to be told, what became of it, and sending it again."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.html import format_html
from unfold.contrib.filters.admin import ChoicesDropdownFilter, DropdownFilter
from unfold.decorators import action, display

from apps.access import audit
from apps.access.audited_admin import Decisions
from apps.access.keyset_admin import DayRangeFilter, OwnedModelAdmin, OwnerFilter
from apps.core.errors import RedriveError
from apps.tasks.admin.links import task_link
from apps.tasks.models import Task
from apps.webhooks.models import WebhookAttempt, WebhookEvent
from apps.webhooks.redeliver import redeliver

STATES = {
    "delivered": "success", "pending": "info", "running": "info", "retrying": "warning", "dead": "danger",
    "held": "warning", "cancelled": "warning",
}  # fmt: skip
SHOWN_TRIES = 50


class DeliveredFilter(DropdownFilter):
    """What has arrived, and what has not."""

    title, parameter_name = "delivery", "delivered"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The choices."""
        return [("yes", "Delivered"), ("no", "Not delivered")]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[WebhookEvent]") -> "QuerySet[WebhookEvent]":
        """The events of the chosen fate."""
        if self.value() in ("yes", "no"):
            return queryset.filter(delivered_at__isnull=self.value() == "no")
        return queryset


@admin.register(WebhookEvent)
class WebhookEventAdmin(Decisions, OwnedModelAdmin):
    """Ends of tasks that a callback URL is told of."""

    list_display = ("created_at", "shown_id", "type", "shown_state", "project_name", "url")
    list_filter = (
        DeliveredFilter,
        ("type", ChoicesDropdownFilter),
        ("project", OwnerFilter),
        ("created_at", DayRangeFilter),
    )
    search_fields = ("id__exact", "task_id__exact")
    search_help_text = "A whole event id without evt_, or a whole task id without task_"
    fieldsets = (
        (None, {"fields": ("shown_id", "type", "shown_state", "project_name", "url", "task", "delivery")}),
        ("What was tried", {"fields": ("timeline",)}),
        ("Times", {"fields": ("created_at", "delivered_at")}),
    )
    readonly_fields = ("shown_id", "shown_state", "project_name", "task", "delivery", "timeline")
    actions_detail = ("redeliver",)
    shown_relations = ("project",)

    def get_queryset(self, request: HttpRequest) -> "QuerySet[WebhookEvent]":
        """With the project, and the state of the task that delivers it."""
        found: QuerySet[WebhookEvent] = super().get_queryset(request)
        state = Subquery(Task.objects.filter(pk=OuterRef("delivery_id")).values("state")[:1])
        return found.defer("body").annotate(delivery_state=state)

    def has_redeliver_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """May send again."""
        return request.user.has_perm("webhooks.change_webhookevent")

    @action(description="Send again", url_path="redeliver", permissions=["redeliver"], icon="replay")
    def redeliver(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Deliver the event once more."""
        event = self.get_object(request, unquote(object_id))
        if event is None:
            raise Http404
        if not self.has_redeliver_permission(request):
            raise PermissionDenied

        def act(values: dict[str, Any]) -> None:
            try:
                with transaction.atomic():
                    sent = redeliver(event.pk)
                    audit.record(
                        "redeliver", event, actor=request.user, reason=values["reason"],
                        before={"delivery_id": str(event.delivery_id)}, after={"delivery_id": str(sent.delivery_id)},
                    )  # fmt: skip
            except RedriveError as error:
                messages.error(request, error.message)
            else:
                messages.success(request, "The event is on its way.")

        return self.decide(
            request,
            event,
            title="Send this event again",
            explanation="The receiver gets the same id and the same body, so one that has seen the event can tell. "
            "A delivery that waits for its next try is replaced by the new one.",
            submit="Send again",
            act=act,
        )

    @display(description="event")
    def shown_id(self, event: WebhookEvent) -> str:
        """As receivers know it."""
        return str(event)

    @display(description="delivery", label=STATES)
    def shown_state(self, event: Any) -> str:
        """In a word."""
        if event.delivered_at is not None:
            return "delivered"
        return "held" if event.held else str(event.delivery_state or "gone")

    @display(description="task")
    def task(self, event: WebhookEvent) -> str:
        """The one it tells of."""
        return task_link(event.task_id)

    @display(description="delivered by")
    def delivery(self, event: WebhookEvent) -> str:
        """The task that delivers it."""
        return task_link(event.delivery_id) if event.delivery_id else ""

    @display(description="tries")
    def timeline(self, event: WebhookEvent) -> str:
        """A line for each, the newest last."""
        rows = list(WebhookAttempt.objects.filter(task_id=event.task_id, event_id=event.pk).order_by("-id"))
        lines = [
            f"{row.created_at:%Y-%m-%d %H:%M:%S}  {row.duration_ms:>6} ms  {row.status_code or '':>3} {row.error} "
            f"{row.message[:200]}"
            for row in reversed(rows[:SHOWN_TRIES])
        ]
        return format_html("<pre>{}</pre>", "\n".join(lines) or "none yet")
