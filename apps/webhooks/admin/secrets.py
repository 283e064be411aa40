"""The admin of webhook secrets: made, rotated and revoked by the verbs of apps/webhooks/secrets.py."""

from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from unfold.decorators import action, display

from apps.access.admin.api_keys import RotateForm
from apps.access.audited_admin import AuditedModelAdmin, posted, posted_reason, secret_page
from apps.webhooks import secrets
from apps.webhooks.models import WebhookSecret


@admin.register(WebhookSecret)
class WebhookSecretAdmin(AuditedModelAdmin):
    """What projects sign their webhooks with. A secret is shown once, when it is made or rotated."""

    list_display = ("project", "created_at", "rotated_at", "overlap")
    list_select_related = ("project",)
    ordering = ("project__name",)
    fields = ("project", "created_at", "rotated_at", "overlap")
    add_fieldsets = ((None, {"fields": ("project",)}),)
    actions_detail = ("rotate", "revoke")

    def get_queryset(self, request: HttpRequest) -> "QuerySet[WebhookSecret]":
        """Nothing is decrypted to be listed."""
        found: QuerySet[WebhookSecret] = super().get_queryset(request).defer("secret", "previous")
        return found

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """There is nothing to type but, for a new one, its project."""
        return self.fields if obj is not None else ()

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody: a secret is revoked."""
        return False

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        """Saving a new one leads to the page with the secret; there is nothing to save of an old one."""
        buttons = {"show_save_and_add_another": False, "show_save_and_continue": False, "show_save": object_id is None}
        return super().changeform_view(request, object_id, form_url, {**(extra_context or {}), **buttons})

    def save_model(self, request: HttpRequest, obj: WebhookSecret, form: Any, change: bool) -> None:
        """New ones are made by the verb, which gives the secret to show."""
        if not change:
            made, request.new_secret = secrets.create(  # type: ignore[attr-defined]
                project=obj.project, actor=request.user, reason=posted_reason(request)
            )
            obj.__dict__.update(made.__dict__)

    def record(self, request: HttpRequest, action: str, row: Any, before: Any, after: Any) -> None:
        """The verb has audited the making."""
        if action != "create":
            super().record(request, action, row, before, after)

    def response_add(self, request: HttpRequest, obj: WebhookSecret, post_url_continue: str | None = None) -> Any:
        """Show the secret, on a page by itself."""
        return self._show(request, obj, request.new_secret)  # type: ignore[attr-defined]

    @action(description="Rotate", url_path="rotate", permissions=["change"], icon="autorenew")
    def rotate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Give the project a new secret."""
        row = self.row_or_404(request, object_id)

        def act(values: dict[str, Any]) -> HttpResponse:
            overlap = timedelta(hours=int(values["overlap"]))
            secret = secrets.rotate(project=row.project, overlap=overlap, actor=request.user, reason=values["reason"])
            return self._show(request, row, secret)

        return self.decide(
            request,
            row,
            title=f"Rotate the webhook secret of {row.project}",
            explanation="The project gets a new secret, which is shown once. Until the old one's time is over, each "
            "webhook carries a signature of both, so that receivers can change over without losing any.",
            submit="Rotate",
            act=act,
            form=RotateForm(posted(request)),
        )

    @action(description="Revoke", url_path="revoke", permissions=["change"], icon="block")
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Forget the secret."""
        row = self.row_or_404(request, object_id)

        def act(values: dict[str, Any]) -> HttpResponse:
            secrets.revoke(project=row.project, actor=request.user, reason=values["reason"])
            messages.success(request, "The webhook secret is revoked.")
            return redirect(reverse("admin:webhooks_webhooksecret_changelist"))

        return self.decide(
            request,
            row,
            title=f"Revoke the webhook secret of {row.project}",
            explanation="Nothing is signed with it any more, at once. Webhooks of the project wait, for as long as "
            "they are tried, until there is a new secret; new tasks with a callback URL are refused.",
            submit="Revoke",
            act=act,
            danger=True,
        )

    @display(description="the old one signs until", empty_value="-")
    def overlap(self, row: WebhookSecret) -> Any:
        """While it rotates."""
        return row.previous_expires_at

    def _show(self, request: HttpRequest, row: WebhookSecret, secret: str) -> HttpResponse:
        return secret_page(
            request, self, title=f"The webhook secret of {row.project}", secret=secret, back_url=self.change_url(row),
            template="admin/webhook_secret.html",
        )  # fmt: skip
