"""The admin of model routes: what a public model name means."""

from django.contrib import admin
from django.db.models import JSONField, Prefetch, QuerySet
from django.http import HttpRequest
from unfold.admin import TabularInline
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget

from apps.access.audited_admin import AuditedModelAdmin
from apps.providers.models import ModelRoute, Upstream


class UpstreamInline(TabularInline):
    """Where the route's requests go, in the order of the positions."""

    model = Upstream
    fields = ("position", "provider", "model", "weight")
    ordering = ("position", "model")
    extra = 0
    min_num = 0
    hide_title = True
    verbose_name_plural = "upstreams"


@admin.register(ModelRoute)
class ModelRouteAdmin(AuditedModelAdmin):
    """Public model names."""

    list_display = ("public_name", "enabled", "goes_to", "context_window", "price")
    list_filter = ("enabled",)
    search_fields = ("public_name", "upstreams__model", "upstreams__provider__name")
    search_help_text = "Search by public name, upstream model or provider"
    ordering = ("public_name",)
    inlines = (UpstreamInline,)
    readonly_fields = ("created_at",)
    formfield_overrides = {JSONField: {"widget": UnfoldAdminTextareaWidget(attrs={"rows": 3})}}
    fieldsets = (
        (None, {"fields": ("public_name", "enabled", "created_at")}),
        (
            "Requests",
            {
                "fields": (
                    "default_params",
                    ("context_window", "max_output_tokens"),
                    ("unknown_fields", "fallback_after"),
                )
            },
        ),
        (
            "Price",
            {
                "fields": (("input_usd_per_million", "output_usd_per_million"),),
                "description": "Leave both empty to go by the published price of each upstream's model.",
            },
        ),
    )

    def get_queryset(self, request: HttpRequest) -> "QuerySet[ModelRoute]":
        """With the upstreams of each route, without the secrets of their providers."""
        upstreams = Upstream.objects.select_related("provider").defer("provider__api_key", "provider__headers")
        found: QuerySet[ModelRoute] = super().get_queryset(request)
        return found.prefetch_related(Prefetch("upstreams", queryset=upstreams.order_by("position", "model")))

    @display(description="goes to")
    def goes_to(self, route: ModelRoute) -> str:
        """The upstreams in order."""
        names = [str(upstream) for upstream in route.upstreams.all()]
        return " → ".join(names[:3]) + (" → …" if len(names) > 3 else "") or "nowhere: add an upstream"

    @display(description="USD per million tokens")
    def price(self, route: ModelRoute) -> str:
        """Input and output, or where the price comes from."""
        if route.input_usd_per_million is None and route.output_usd_per_million is None:
            return "published"
        return f"{route.input_usd_per_million or 0:g} in, {route.output_usd_per_million or 0:g} out"
