"""The admin of projects."""

from typing import Any

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from unfold.admin import TabularInline
from unfold.decorators import display

from apps.access.admin.words import KeyColumns, LimitInline, ledger_link, limits_in_words
from apps.access.audited_admin import AuditedModelAdmin
from apps.access.models import ApiKey, Project


class ProjectKeysInline(KeyColumns, TabularInline):
    """The project's keys, to look at."""

    model = ApiKey
    fields = ("key_name", "shown_prefix", "status", "expires_at", "created_at")
    readonly_fields = fields
    extra = max_num = 0
    can_delete = False
    hide_title = True
    verbose_name_plural = "API keys"

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Keys are made on their own page, which shows the secret once."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Only to look at."""
        return False

    @display(description="name")
    def key_name(self, key: ApiKey) -> str:
        """With a link to its page."""
        url = reverse("admin:access_apikey_change", args=[key.pk])
        return format_html('<a class="text-link" href="{}">{}</a>', url, key.name)


@admin.register(Project)
class ProjectAdmin(AuditedModelAdmin):
    """Projects, their limits and what they keep."""

    list_display = ("name", "key_count", "limits", "store_bodies", "created_at")
    search_fields = ("name",)
    search_help_text = "Search by name"
    ordering = ("name",)
    list_select_related = ("limit",)
    inlines = (LimitInline, ProjectKeysInline)
    readonly_fields = ("created_at", "ledger")
    fieldsets = (
        (None, {"fields": ("name", "created_at", "ledger")}),
        ("Texts of requests and answers", {"fields": ("store_bodies", "body_retention_days")}),
    )
    add_fieldsets = (
        (None, {"fields": ("name",)}),
        ("Texts of requests and answers", {"fields": ("store_bodies", "body_retention_days")}),
    )

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Project]":
        """With the number of keys."""
        found: QuerySet[Project] = super().get_queryset(request).annotate(keys=Count("api_keys"))
        return found

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        """A project that is being added has no keys yet."""
        return self.inlines if obj is not None else self.inlines[:1]

    @display(description="API keys", ordering="keys")
    def key_count(self, project: Any) -> int:
        """How many keys it has."""
        return int(project.keys)

    @display(description="limits")
    def limits(self, project: Project) -> str:
        """Its limits in words."""
        return limits_in_words(getattr(project, "limit", None))

    @display(description="usage")
    def ledger(self, project: Project) -> str:
        """Where its requests are."""
        return ledger_link(project__id__exact=project.pk)
