"""The admin of API keys: made, rotated, disabled and enabled by the verbs of apps/access/keys.py."""

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.postgres.fields import ArrayField
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from unfold.contrib.filters.admin import DropdownFilter
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from apps.access import keys
from apps.access.admin.words import (
    LIMIT_FIELDS,
    LIMIT_LABELS,
    LIMIT_ROWS,
    KeyColumns,
    LimitInline,
    ledger_link,
    limits_in_words,
)
from apps.access.audited_admin import AuditedModelAdmin, DecisionForm, posted, posted_reason, secret_page
from apps.access.keyset_admin import OwnerFilter
from apps.access.models import ApiKey

OVERLAPS = [("0", "not at all: it stops now"), ("1", "1 hour"), ("24", "1 day"), ("168", "7 days"), ("720", "30 days")]


class NewKeyForm(forms.ModelForm):  # type: ignore[type-arg]
    """A new key with its limits."""

    requests_per_minute = forms.IntegerField(
        required=False, min_value=1, initial=keys.DEFAULT_REQUESTS_PER_MINUTE, widget=UnfoldAdminIntegerFieldWidget
    )
    tokens_per_minute = forms.IntegerField(required=False, min_value=1, widget=UnfoldAdminIntegerFieldWidget)
    concurrency = forms.IntegerField(
        required=False, min_value=1, widget=UnfoldAdminIntegerFieldWidget, help_text="Requests at the same time."
    )
    monthly_budget_usd = forms.DecimalField(
        label=LIMIT_LABELS["monthly_budget_usd"],
        required=False,
        min_value=0,
        max_digits=12,
        decimal_places=4,
        widget=UnfoldAdminTextInputWidget,
    )
    end_user_requests_per_minute = forms.IntegerField(
        label=LIMIT_LABELS["end_user_requests_per_minute"],
        required=False,
        min_value=1,
        widget=UnfoldAdminIntegerFieldWidget,
    )

    class Meta:
        model = ApiKey
        fields = ("project", "name", "allowed_models", "expires_at")

    def limits(self) -> dict[str, Any]:
        """The fields of Limit."""
        return {name: self.cleaned_data[name] for name in LIMIT_FIELDS}


class RotateForm(DecisionForm):
    """How long the old secret goes on working."""

    overlap = forms.ChoiceField(
        label="The old secret goes on working for", choices=OVERLAPS, initial="24", widget=UnfoldAdminSelectWidget
    )


class StatusFilter(DropdownFilter):
    """Keys that work, and those that do not."""

    title = parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The choices."""
        return [("works", "Works"), ("disabled", "Disabled"), ("expired", "Expired")]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[ApiKey]") -> "QuerySet[ApiKey]":
        """The keys of the chosen status."""
        expired = Q(expires_at__lte=Now())
        match self.value():
            case "works":
                return queryset.filter(disabled_at__isnull=True).exclude(expired)
            case "disabled":
                return queryset.filter(disabled_at__isnull=False)
            case "expired":
                return queryset.filter(expired)
        return queryset


@admin.register(ApiKey)
class ApiKeyAdmin(KeyColumns, AuditedModelAdmin):
    """API keys. Their secrets are shown once, when they are made or rotated; keys are disabled, never deleted."""

    list_display = ("name", "project", "shown_prefix", "status", "limits", "allowed", "expires_at", "created_at")
    list_filter = (("project", OwnerFilter), StatusFilter)
    search_fields = ("name", "prefix")
    search_help_text = "Search by name, or by the key's first characters"
    ordering = ("-created_at",)
    list_select_related = ("project", "limit")
    inlines = (LimitInline,)
    formfield_overrides = {ArrayField: {"widget": UnfoldAdminTextInputWidget}}
    readonly_fields = ("shown_prefix", "status", "previous_expires_at", "disabled_at", "created_at", "ledger")
    fieldsets = (
        (None, {"fields": ("project", "name", "allowed_models", "expires_at")}),
        ("State", {"fields": readonly_fields}),
    )
    add_fieldsets = (
        (None, {"fields": ("project", "name", "allowed_models", "expires_at")}),
        ("Limits", {"fields": LIMIT_ROWS, "description": "An empty field is no limit."}),
    )
    actions_detail = ("rotate", "disable", "enable")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody: the ledger and the audit speak of keys. They are disabled instead."""
        return False

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> Any:
        """Saving leads to the page with the secret, and nowhere else."""
        buttons = {"show_save_and_add_another": False, "show_save_and_continue": False}
        return super().add_view(request, form_url, {**(extra_context or {}), **buttons})

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        """On the page of a new key its limits are part of the form."""
        return self.inlines if obj is not None else ()

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """A key stays in its project, which its spend belongs to."""
        return (*self.readonly_fields, "project") if obj is not None else ()

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """New keys have a form of their own."""
        return super().get_form(request, obj, change, **(kwargs if obj is not None else {**kwargs, "form": NewKeyForm}))

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> Any:
        """Of disable and enable the one that would change something."""
        shown = super().get_actions_detail(request, object_id)
        key = self.get_object(request, object_id)
        useless = "disable" if key is not None and key.disabled_at is not None else "enable"
        return [one for one in shown if not one.action_name.endswith(f"_{useless}")]

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        """New keys are made by the verb, which gives the secret to show."""
        if change:
            super().save_model(request, obj, form, change)
            return
        fields = {"allowed_models": obj.allowed_models, "expires_at": obj.expires_at}
        made, request.new_secret = keys.create(  # type: ignore[attr-defined]
            project=obj.project,
            name=obj.name,
            actor=request.user,
            reason=posted_reason(request),
            limits=form.limits(),
            **fields,
        )
        obj.__dict__.update(made.__dict__)

    def record(self, request: HttpRequest, action: str, row: Any, before: Any, after: Any) -> None:
        """The verb has audited the making of a key."""
        if action != "create":
            super().record(request, action, row, before, after)

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:
        """Show the secret, on a page by itself."""
        return self._show(request, obj, "Your new API key", request.new_secret)  # type: ignore[attr-defined]

    @action(description="Rotate", url_path="rotate", permissions=["change"], icon="autorenew")
    def rotate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Give the key a new secret."""
        key = self.row_or_404(request, object_id)

        def act(values: dict[str, Any]) -> HttpResponse:
            overlap = timedelta(hours=int(values["overlap"]))
            secret = keys.rotate(key=key, overlap=overlap, actor=request.user, reason=values["reason"])
            return self._show(request, key, f"The new secret of {key.name}", secret)

        return self.decide(
            request,
            key,
            title=f"Rotate {key.name}",
            explanation="The key gets a new secret, which is shown once. The limits, the project and the key's "
            "history stay. Give the new secret to whoever uses the key before the old one stops working.",
            submit="Rotate",
            act=act,
            form=RotateForm(posted(request)),
        )

    @action(description="Disable", url_path="disable", permissions=["change"], icon="block")
    def disable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Stop the key."""
        return self._switch(request, object_id, disabled=True)

    @action(description="Enable", url_path="enable", permissions=["change"], icon="check_circle")
    def enable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Allow the key again."""
        return self._switch(request, object_id, disabled=False)

    def _switch(self, request: HttpRequest, object_id: str, *, disabled: bool) -> HttpResponse:
        key = self.row_or_404(request, object_id)
        word = "Disable" if disabled else "Enable"

        def act(values: dict[str, Any]) -> None:
            keys.set_disabled(key=key, disabled=disabled, actor=request.user, reason=values["reason"])
            messages.success(request, f"{key.name} is {word.lower()}d.")

        explanation = (
            "Requests with this key, and with its previous secret, are refused within a second. "
            "Tasks that it sent before die when their turn comes, and can be redriven. It can be enabled again."
            if disabled
            else "Requests with this key are served again."
        )
        return self.decide(
            request, key, title=f"{word} {key.name}", explanation=explanation, submit=word, act=act, danger=disabled
        )

    def _show(self, request: HttpRequest, key: ApiKey, title: str, secret: str) -> HttpResponse:
        return secret_page(request, self, title=title, secret=secret, back_url=self.change_url(key))

    @display(description="limits")
    def limits(self, key: ApiKey) -> str:
        """Its limits in words."""
        return limits_in_words(getattr(key, "limit", None))

    @display(description="models")
    def allowed(self, key: ApiKey) -> str:
        """The models it may use."""
        return ", ".join(key.allowed_models) or "all"

    @display(description="usage")
    def ledger(self, key: ApiKey) -> str:
        """Where its requests are."""
        return ledger_link(api_key__id__exact=key.pk)
