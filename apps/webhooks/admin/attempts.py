"""The admin of tries to deliver: what was answered."""

from django.contrib import admin
from django.urls import reverse
from django.utils.html import format_html
from unfold.decorators import display

from apps.access.keyset_admin import DayRangeFilter, OwnedModelAdmin, OwnerFilter
from apps.tasks.admin.links import task_link
from apps.webhooks.models import WebhookAttempt


@admin.register(WebhookAttempt)
class WebhookAttemptAdmin(OwnedModelAdmin):
    """Each try to deliver an event, and what was answered."""

    list_display = (
        "created_at",
        "event",
        "type",
        "number",
        "status_code",
        "error",
        "duration_ms",
        "project_name",
        "url",
    )
    list_filter = (("project", OwnerFilter), ("created_at", DayRangeFilter))
    search_fields = ("task_id__exact",)
    search_help_text = "A whole task id, without task_"
    fields = (
        "created_at", "event", "type", "number", "url", "status_code", "error", "message", "duration_ms",
        "project_name", "task", "answer",
    )  # fmt: skip
    readonly_fields = ("event", "project_name", "task", "answer")
    shown_relations = ("project",)

    @display(description="event")
    def event(self, row: WebhookAttempt) -> str:
        """With a link to it, where it can be sent again."""
        url = reverse("admin:webhooks_webhookevent_change", args=[row.event_id])
        return format_html('<a class="text-link" href="{}">evt_{}</a>', url, row.event_id.hex)

    @display(description="task")
    def task(self, row: WebhookAttempt) -> str:
        """The one that was told of."""
        return task_link(row.task_id)

    @display(description="answer")
    def answer(self, row: WebhookAttempt) -> str:
        """Its first 2 KiB."""
        return format_html("<pre>{}</pre>", row.response)
