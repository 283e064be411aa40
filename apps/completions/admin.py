"""The admin of the ledger and of stored texts: to read only."""

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.html import format_html
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import action, display

from apps.access import audit
from apps.access.audited_admin import Decisions
from apps.access.keyset_admin import DayRangeFilter, NameFilter, OwnedModelAdmin, OwnerFilter
from apps.completions.models import LedgerEntry, StoredBody
from apps.core import json_codec
from apps.providers.models import ModelRoute, Provider

OUTCOMES = {"Succeeded": "success", "Failed": "danger", "Interrupted": "danger", "Cancelled": "warning"}


class ModelFilter(NameFilter):
    """By public model name."""

    title = parameter_name = "model"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The routes."""
        return [
            (name, name) for name in ModelRoute.objects.order_by("public_name").values_list("public_name", flat=True)
        ]


class ProviderFilter(NameFilter):
    """By provider."""

    title = parameter_name = "provider"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The providers."""
        return [(name, name) for name in Provider.objects.order_by("name").values_list("name", flat=True)]


@admin.register(LedgerEntry)
class LedgerEntryAdmin(OwnedModelAdmin):
    """What each upstream request used, cost and took."""

    list_display = (
        "created_at", "project_name", "key_name", "model", "upstream", "shown_outcome", "tokens", "cost", "latency",
        "short_request_id",
    )  # fmt: skip
    list_filter = (
        ("project", OwnerFilter),
        ModelFilter,
        ProviderFilter,
        ("outcome", ChoicesDropdownFilter),
        ("created_at", DayRangeFilter),
    )
    search_fields = ("request_id__exact",)
    search_help_text = "A whole request id (x-request-id)"
    fieldsets = (
        (None, {"fields": ("created_at", "request_id", "project_name", "key_name", "end_user")}),
        ("Request", {"fields": ("operation", "model", "stream", "attempt", "task_id", "task_attempt")}),
        (
            "Answer",
            {
                "fields": (
                    "provider", "upstream_model", "upstream_request_id", "outcome", "status", "error_code",
                    "latency_ms", "ttft_ms", "elapsed_ms",
                )
            },
        ),
        ("Cost", {"fields": ("input_tokens", "cached_tokens", "output_tokens", "cost", "estimated")}),
    )  # fmt: skip
    readonly_fields = ("project_name", "key_name", "cost")

    @display(description="request id")
    def short_request_id(self, entry: LedgerEntry) -> str:
        """Its beginning; the whole is in the title and on the row's page."""
        request_id = entry.request_id
        short = request_id if len(request_id) <= 16 else f"{request_id[:16]}…"
        return format_html('<span title="{}">{}</span>', request_id, short)

    @display(description="upstream")
    def upstream(self, entry: LedgerEntry) -> str:
        """Provider and model there."""
        return f"{entry.provider}/{entry.upstream_model}"

    @display(description="outcome", label=OUTCOMES)
    def shown_outcome(self, entry: LedgerEntry) -> str:
        """In words."""
        return str(LedgerEntry.Outcome(entry.outcome).label)

    @display(description="tokens in / out")
    def tokens(self, entry: LedgerEntry) -> str:
        """Input and output."""
        return f"{entry.input_tokens:,} / {entry.output_tokens:,}"

    @display(description="cost (USD)")
    def cost(self, entry: LedgerEntry) -> str:
        """US dollars; ~ where it is estimated."""
        return f"{'~' if entry.estimated else ''}${entry.cost_usd:.6f}"

    @display(description="latency")
    def latency(self, entry: LedgerEntry) -> str:
        """The whole upstream request."""
        return f"{entry.latency_ms:,} ms"


@admin.register(StoredBody)
class StoredBodyAdmin(Decisions, OwnedModelAdmin):
    """Texts of requests. Each look at one is a decision that the audit keeps."""

    list_display = ("created_at", "project_name", "request_id", "expires_at")
    list_filter = (("project", OwnerFilter), ("created_at", DayRangeFilter))
    search_fields = ("request_id__exact",)
    search_help_text = "A whole request id (x-request-id)"
    fields = ("request_id", "project_name", "created_at", "expires_at")
    readonly_fields = ("project_name",)
    actions_detail = ("reveal",)
    shown_relations = ("project",)

    def get_queryset(self, request: HttpRequest) -> "QuerySet[StoredBody]":
        """Without the texts."""
        return super().get_queryset(request).defer("request", "response")

    @action(description="Show the texts", url_path="reveal", permissions=["view"], icon="visibility")
    def reveal(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show the texts, on POST, and say so in the audit."""
        body = self.get_object(request, object_id)
        if body is None:
            raise Http404
        if not self.has_view_permission(request, body):
            raise PermissionDenied

        def read(reason: str) -> dict[str, str]:
            audit.record("view", body, actor=request.user, reason=reason)
            return {"Request": json_codec.readable(body.request), "Answer": json_codec.readable(body.response)}

        return self.show_texts(
            request,
            body,
            title=f"Texts of {body.request_id}",
            explanation="These are the words of a person. That you looked at them is kept in the audit.",
            read=read,
        )
