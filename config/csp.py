"""Sends the Content-Security-Policy: nothing inline, nothing foreign; docs/decisions/0004-csp.md says why."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase

_COMMON = (
    "default-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
STRICT = f"{_COMMON}; script-src 'self'; style-src 'self'"
# Unfold's Alpine and htmx compile expressions of attributes and set styles; scripts stay files of ours.
ADMIN = f"{_COMMON}; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'"


class ContentSecurityPolicyMiddleware:
    """The policy of Django's side; the API side serves no pages but its docs."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        response.headers.setdefault("Content-Security-Policy", ADMIN if is_admin(request.path) else STRICT)
        return response


def is_admin(path: str) -> bool:
    """Whether a path belongs to the admin."""
    return path.startswith("/admin/")
