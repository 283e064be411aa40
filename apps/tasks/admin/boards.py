"""Pages of the admin that show the present state of a few things at once instead of a list of rows."""

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from apps.access.audited_admin import Decisions, ReadOnlyModelAdmin


class BoardAdmin(Decisions, ReadOnlyModelAdmin):
    """Shows `board_template` in place of the list; it refreshes itself."""

    board_template: str

    def board(self, request: HttpRequest) -> dict[str, Any]:
        """The template's variables."""
        raise NotImplementedError

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """The board."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        shared = {"title": str(self.opts.verbose_name_plural).capitalize(), "opts": self.opts}
        context = {**self.admin_site.each_context(request), **shared, **self.board(request)}
        return TemplateResponse(request, self.board_template, context)
