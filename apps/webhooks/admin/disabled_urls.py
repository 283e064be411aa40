"""The admin of URLs that want no more webhooks."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from unfold.decorators import action

from apps.access.audited_admin import Decisions
from apps.access.keyset_admin import KeysetModelAdmin, OwnerFilter
from apps.webhooks import disabled
from apps.webhooks.models import DisabledUrl


@admin.register(DisabledUrl)
class DisabledUrlAdmin(Decisions, KeysetModelAdmin):
    """URLs that answered 410 Gone: nothing is sent there."""

    list_display = ("created_at", "project", "url")
    list_filter = (("project", OwnerFilter),)
    list_select_related = ("project",)
    fields = ("created_at", "project", "url")
    readonly_fields = ("created_at",)
    actions_detail = ("enable_url",)

    def has_enable_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """May enable."""
        return request.user.has_perm("webhooks.change_disabledurl")

    @action(description="Enable", url_path="enable", permissions=["enable"], icon="check_circle")
    def enable_url(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Send there again."""
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404
        if not self.has_enable_permission(request):
            raise PermissionDenied

        def act(values: dict[str, Any]) -> HttpResponse:
            disabled.enable(row=row, actor=request.user, reason=values["reason"])
            messages.success(request, "Webhooks go to this URL again.")
            return redirect(reverse("admin:webhooks_disabledurl_changelist"))

        return self.decide(
            request,
            row,
            title="Enable this URL",
            explanation="What happens from now on is sent there again. Events that were held meanwhile are sent when "
            "you say so, on their own pages.",
            submit="Enable",
            act=act,
        )
