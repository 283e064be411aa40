"""The admin of providers: connection, secrets that are never shown, a test, the reset of breakers."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from redis.exceptions import RedisError
from unfold.decorators import action, display

from apps.access.audited_admin import AuditedModelAdmin, posted
from apps.providers import breaker_board, probe
from apps.providers.admin.forms import ProbeForm, ProviderForm, ResetForm
from apps.providers.models import ModelRoute, Provider

STATES = {"closed": "success", "probe": "warning", "open": "danger", "blocked": "danger"}
WORST_FIRST = ("blocked", "open", "probe", "unknown", "disabled", "closed")


@admin.register(Provider)
class ProviderAdmin(AuditedModelAdmin):
    """Where models are served."""

    form = ProviderForm
    list_display = ("name", "base_url", "enabled", "key_stored", "models", "breaker_states", "updated_at")
    list_filter = ("enabled",)
    search_fields = ("name", "base_url")
    search_help_text = "Search by name or address"
    ordering = ("name",)
    readonly_fields = ("created_at", "updated_at")
    change_form_outer_before_template = "admin/providers/breakers.html"
    actions_detail = ("test", "reset_breaker")
    _connection = (
        "name",
        "kind",
        "base_url",
        "enabled",
        "new_api_key",
        "remove_api_key",
        "new_headers",
        "remove_headers",
    )
    _limits = (
        ("Timeouts", {"fields": (("connect_timeout", "first_token_timeout"), ("idle_timeout", "total_timeout"))}),
        (
            "Load and circuit breaker",
            {"fields": (("max_concurrency", "breaker_failures"), ("breaker_window", "breaker_reset"))},
        ),
    )
    fieldsets = (
        (None, {"fields": _connection}),
        *_limits,
        ("Dates", {"fields": (("created_at", "updated_at"),)}),
    )
    add_fieldsets = ((None, {"fields": _connection}), *_limits)

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Provider]":
        """Without the secrets, only with whether they are set."""
        is_set = {
            f"has_{name}": ExpressionWrapper(~Q(**{name: ""}), output_field=BooleanField())
            for name in ("api_key", "headers")
        }
        found: QuerySet[Provider] = super().get_queryset(request).defer("api_key", "headers").annotate(**is_set)
        return found.prefetch_related("upstreams")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Whoever may only look sees no fields for secrets."""
        shown = super().get_fieldsets(request, obj)
        may_write = self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        hidden = [name for name in self._connection if "_" in name and name != "base_url"]
        unset = [f"remove_{name}" for name in ("api_key", "headers") if not getattr(obj, f"has_{name}", False)]
        left_out = unset if may_write else hidden
        return [
            (title, {**options, "fields": [name for name in options["fields"] if name not in left_out]})
            for title, options in shown
        ]

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """The list with the breakers of all its rows, read at once."""
        changelist = super().get_changelist_instance(request)
        changelist.result_list = list(changelist.result_list)
        states: dict[Any, set[str]] = {}
        for breaker in breaker_board.load():
            states.setdefault(breaker.provider.pk, set()).add(breaker.state)
        for row in changelist.result_list:
            row.states = states.get(row.pk, set())
        return changelist

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None) -> Any:
        """Shows the provider's breakers below the form."""
        row = self.get_object(request, unquote(object_id)) if request.method == "GET" else None
        extra = {"breakers": breaker_board.load(provider=row)} if row else {}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **extra})

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """What keeps a provider from being deleted are routes: name them, with links."""
        deleted, counts, lacking, protected = super().get_deleted_objects(objs, request)
        if protected:
            routes = ModelRoute.objects.filter(upstreams__provider__in=objs).distinct().order_by("public_name")
            protected = [
                format_html(
                    'Model route <a href="{}">{}</a>',
                    reverse("admin:providers_modelroute_change", args=[route.pk]),
                    route.public_name,
                )
                for route in routes
            ]
        return deleted, counts, lacking, protected

    def save_model(self, request: HttpRequest, obj: Provider, form: Any, change: bool) -> None:
        """Secrets are written only where one was given or is to be removed."""
        for name, secret in form.secrets().items():
            setattr(obj, name, secret)
        super().save_model(request, obj, form, change)

    @action(description="Test this provider", url_path="test", permissions=["change"], icon="network_check")
    def test(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """One real request, on POST."""
        provider = self.row_or_404(request, object_id)
        form = ProbeForm(posted(request), models=breaker_board.models_of(provider))

        outcome = None
        if request.method == "POST" and form.is_valid():
            values = form.cleaned_data
            # Not through `decide`: a transaction must not wait for a provider.
            outcome = probe.run(provider, model=values["model"], actor=request.user, reason=values["reason"])
            self.log_action(request, provider, f"Tested: {outcome.words}")
        context = {
            "outcome": outcome,
            **self.admin_site.each_context(request),
            "title": f"Test {provider.name}",
            "explanation": f"Sends one request to {provider.base_url} and says how it went. If it goes well, calls "
            "that were kept away because the credentials were refused go there again.",
            "form": form,
            "submit_text": "Test",
            "opts": self.opts,
            "back_url": self.change_url(provider),
        }
        return TemplateResponse(request, "admin/providers/tested.html", context)

    def has_reset_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """May reset the breakers of a provider that is shown."""
        return request.user.has_perms((breaker_board.MAY_RESET, "providers.view_provider"))

    @action(description="Reset breaker", url_path="reset-breaker", permissions=["reset"], icon="restart_alt")
    def reset_breaker(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Close breakers, on POST."""
        provider = self.get_object(request, unquote(object_id))
        if provider is None:
            raise Http404
        models = breaker_board.models_of(provider)

        def act(values: dict[str, Any]) -> HttpResponse | None:
            chosen = [values["model"]] if values["model"] else models
            try:
                breaker_board.reset(provider, chosen, actor=request.user, reason=values["reason"])
                messages.success(request, f"Reset: {', '.join(chosen) or 'no model uses this provider'}.")
            except RedisError:
                messages.error(request, "Redis does not answer; nothing was reset.")
            return redirect("admin:index") if request.POST.get("back") == "home" else None

        return self.decide(
            request,
            provider,
            title=f"Reset breakers of {provider.name}",
            explanation="Calls go to this provider again at once. If it still fails, the breaker opens again.",
            submit="Reset",
            act=act,
            form=ResetForm(posted(request), models=models),
        )

    @display(description="key stored", boolean=True)
    def key_stored(self, provider: Any) -> bool:
        """Whether it has an API key."""
        return bool(provider.has_api_key)

    @display(description="models")
    def models(self, provider: Provider) -> str:
        """The models that routes use there."""
        names = sorted({upstream.model for upstream in provider.upstreams.all()})
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "none"

    @display(description="breakers", label=STATES)
    def breaker_states(self, provider: Any) -> str:
        """The worst state of its models."""
        return next((state for state in WORST_FIRST if state in provider.states), "-")
