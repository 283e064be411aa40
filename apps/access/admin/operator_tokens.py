"""The admin of operators' tokens: everybody sees, makes and revokes their own; superusers see and revoke all."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import display
from unfold.widgets import UnfoldAdminIntegerFieldWidget

from apps.access import operator_tokens
from apps.access.audited_admin import AuditedModelAdmin, posted_reason, secret_page
from apps.access.models import OperatorToken
from apps.core.errors import Conflict


class NewTokenForm(forms.ModelForm):  # type: ignore[type-arg]
    """A new token of who fills it in."""

    days = forms.IntegerField(
        label="Works for",
        initial=operator_tokens.DEFAULT_DAYS,
        min_value=1,
        max_value=operator_tokens.MOST_DAYS,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="Days.",
    )

    class Meta:
        model = OperatorToken
        fields = ("name",)


@admin.register(OperatorToken)
class OperatorTokenAdmin(AuditedModelAdmin):
    """Tokens for scripts. They have the rights of their person and are shown once; to revoke one is to delete it."""

    list_display = ("name", "shown_key", "user", "status", "created", "expiry")
    list_display_links = ("name", "shown_key")
    ordering = ("-created",)
    list_select_related = ("user",)
    add_fieldsets = ((None, {"fields": ("name", "days")}),)
    fields = readonly_fields = ("name", "shown_key", "user", "status", "created", "expiry")

    def has_module_permission(self, request: HttpRequest) -> bool:
        """The staff."""
        return self.has_add_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """The staff, each for oneself."""
        return bool(request.user.is_active and request.user.is_staff)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Of one's own."""
        return self.has_add_permission(request) and (
            obj is None or request.user.is_superuser or obj.user_id == request.user.pk
        )

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody: a token is as it was made."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """To revoke one's own."""
        return self.has_view_permission(request, obj)

    def get_queryset(self, request: HttpRequest) -> "QuerySet[OperatorToken]":
        """One's own; without the digests."""
        found: QuerySet[OperatorToken] = super().get_queryset(request).defer("digest")
        return found if request.user.is_superuser else found.filter(user=request.user)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """New tokens have a form of their own."""
        return super().get_form(
            request, obj, change, **(kwargs if obj is not None else {**kwargs, "form": NewTokenForm})
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """All of a token that is there."""
        return self.readonly_fields if obj is not None else ()

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> Any:
        """Saving leads to the page with the token, and nowhere else."""
        buttons = {"show_save_and_add_another": False, "show_save_and_continue": False}
        try:
            return super().add_view(request, form_url, {**(extra_context or {}), **buttons})
        except Conflict as error:
            messages.error(request, error.message)
            return redirect("admin:access_operatortoken_changelist")

    def save_model(self, request: HttpRequest, obj: OperatorToken, form: Any, change: bool) -> None:
        """Made by the verb, which gives the token to show."""
        values = {"name": obj.name, "days": form.cleaned_data["days"], "reason": posted_reason(request)}
        made, request.new_secret = operator_tokens.create(  # type: ignore[attr-defined]
            user=request.user, actor=request.user, **values
        )
        obj.__dict__.update(made.__dict__)

    def record(self, request: HttpRequest, action: str, row: Any, before: Any, after: Any) -> None:
        """The verb has audited the making."""
        if action != "create":
            super().record(request, action, row, before, after)

    def response_add(
        self, request: HttpRequest, obj: OperatorToken, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the token, on a page by itself."""
        response = secret_page(
            request,
            self,
            title="Your new operator token",
            secret=request.new_secret,  # type: ignore[attr-defined]
            back_url=reverse("admin:access_operatortoken_changelist"),
            template="admin/operator_token.html",
        )
        response.context_data["operators_url"] = request.build_absolute_uri("/ops/api/")  # type: ignore[attr-defined]
        return response

    @display(description="token")
    def shown_key(self, token: OperatorToken) -> str:
        """Its first characters."""
        return f"{token.token_key}…"

    @display(description="status", label={"works": "success", "expired": "warning", "rests": "danger"})
    def status(self, token: OperatorToken) -> str:
        """rests: its person is no active member of the staff."""
        if token.expiry <= timezone.now():
            return "expired"
        return "works" if token.user.is_active and token.user.is_staff else "rests"
