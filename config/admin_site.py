"""The operators' admin: unfold's look, the operator home as its first page."""

import functools
from collections.abc import Callable
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.views.decorators.cache import never_cache
from unfold.sites import UnfoldAdminSite

from apps.access import audit
from apps.core.errors import PermissionDenied as MayNot
from config import operations


class RedriveAdminSite(UnfoldAdminSite):
    """Adds the operator home, and an audit entry where a person changes the own password."""

    site_title = site_header = "Redrive"
    index_title = "Operations"
    index_template = "admin/home.html"
    enable_nav_sidebar = True

    def extra_urls(self) -> list[Any]:
        """The part of the home that refreshes itself."""
        return [path("operations/", never_cache(self.operations), name="operations")]

    def admin_view(self, view: Callable[..., Any], cacheable: bool = False) -> Callable[..., Any]:
        """Django's, but for an address with NUL, which Postgres' text refuses and which nothing has: 404; and for what
        our verbs refuse to a person: 403."""
        inner = super().admin_view(view, cacheable)

        @functools.wraps(inner)
        def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if "\0" in request.path:
                raise Http404
            try:
                return inner(request, *args, **kwargs)
            except MayNot as error:
                raise PermissionDenied(error.message) from error

        return checked

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        """The operator home."""
        found: TemplateResponse = super().index(request, {**operations.context(request), **(extra_context or {})})
        return found

    def operations(self, request: HttpRequest) -> HttpResponse:
        """The home's inner part alone. Whoever is no longer logged in is sent to the login by htmx."""
        if not self.has_permission(request):
            return HttpResponse(status=403, headers={"HX-Redirect": reverse("admin:login")})
        return TemplateResponse(request, "admin/operations.html", operations.context(request))

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Django's page, audited."""
        with transaction.atomic():
            response: HttpResponse = super().password_change(request, extra_context)
            if request.method == "POST" and response.status_code == 302:
                audit.record("change_own_password", request.user, actor=request.user)  # type: ignore[arg-type]
        return response
