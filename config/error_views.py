"""Every error of Django's side: a page for people at the admin, the one JSON body for everybody else."""

import sys
from typing import Any

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

from apps.core import error_payload, errors, lean_asgi, request_context
from config.csp import is_admin
from config.drf import bad_value

log = structlog.get_logger(__name__)


class LoginsThrottled(errors.RateLimitExceeded):
    """Too many refused logins of one user from one address."""

    default_message = "Too many refused logins. Wait a while, or ask an administrator to let you in again."


def handler400(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Malformed requests, hosts that are not ours."""
    return answer(request, error_payload.translate(exception) or errors.InvalidRequest())


def handler403(request: HttpRequest, exception: Exception) -> HttpResponse:
    """What this person may not do."""
    message = "Your account may not do that. Ask an administrator for the permission."
    return answer(request, errors.PermissionDenied(message))


def handler404(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Nothing there."""
    return answer(request, errors.NotFound())


def handler500(request: HttpRequest) -> HttpResponse:
    """Stores that are away (503) and bugs of ours."""
    error = sys.exc_info()[1]
    known = error_payload.translate(error) if error is not None else None
    return answer(request, known or bad_value(error) or errors.InternalError())


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A form that did not come from our own page, or that waited until its session had ended."""
    log.warning("csrf_refused", why=reason, path=request.path[:200])
    message = "This form has expired or came from another site. Go back, load the page again, and send it again."
    return answer(request, errors.PermissionDenied(message))


def locked_out(request: HttpRequest, *_: Any) -> HttpResponse:
    """The answer of axes to a user who was refused too often."""
    return answer(request, LoginsThrottled(retry_after=settings.AXES_COOLOFF_TIME * 3600))


def answer(request: HttpRequest, error: errors.RedriveError) -> HttpResponse:
    """The page or the body."""
    if not (is_admin(request.path) and "text/html" in request.headers.get("Accept", "")):
        return lean_asgi.render(error)
    # Without the request: its context would ask Postgres who this is, and Postgres may be what is away.
    context = {"error": error, "request_id": request_context.current().request_id, "minutes": _minutes(error)}
    page = render_to_string("errors/page.html", context)
    return HttpResponse(page, status=error.status, headers=error_payload.headers(error))


def _minutes(error: errors.RedriveError) -> int:
    return round((error.retry_after or 0) / 60)
