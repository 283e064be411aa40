"""What all of the operators' REST API share: the one error body, model permissions, cursor paging."""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from django.db import DataError
from rest_framework import exceptions
from rest_framework.pagination import CursorPagination
from rest_framework.permissions import DjangoModelPermissions
from rest_framework.response import Response

from apps.core import error_payload, errors, request_context

log = structlog.get_logger(__name__)


class ModelPermissions(DjangoModelPermissions):
    """Django's permissions, those to view included."""

    perms_map = {
        **DjangoModelPermissions.perms_map,
        **{method: ["%(app_label)s.view_%(model_name)s"] for method in ("GET", "HEAD", "OPTIONS")},
    }


_POSITIONS: dict[str, Callable[[str], object]] = {"-created_at": datetime.fromisoformat, "-id": UUID}


class NewestFirst(CursorPagination):
    """Pages through the index on (created_at, id), or as a view's `page_order` says, never counted."""

    ordering = ("-created_at", "-id")
    page_size_query_param = "limit"
    max_page_size = 500

    def get_ordering(self, request: Any, queryset: Any, view: Any) -> tuple[str, ...]:
        """The view's own order, else that of the class."""
        return tuple(getattr(view, "page_order", self.ordering))

    def decode_cursor(self, request: Any) -> Any:
        """The cursor of the query. Raises NotFound for one that was never given."""
        cursor = super().decode_cursor(request)
        if cursor is not None and cursor.position is not None:
            try:
                _POSITIONS[self.ordering[0]](str(cursor.position))
            except ValueError:
                raise exceptions.NotFound(self.invalid_cursor_message) from None
        return cursor


def answer(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's EXCEPTION_HANDLER: any exception as the one body."""
    from rest_framework.views import set_rollback  # which itself imports the classes above

    set_rollback()
    known = error_payload.translate(error) or (translate(error) if isinstance(error, exceptions.APIException) else None)
    known = known or bad_value(error)
    if known is None:
        log.error("unhandled_error", exc_info=error)
        known = errors.InternalError()
    body = error_payload.payload(known, request_context.current().request_id)
    return Response(body, status=known.status, headers=error_payload.headers(known))


def bad_value(error: BaseException | None) -> errors.RedriveError | None:
    """The answer where a query's value is one that no column can hold: a year 0, a NUL, a number beyond 64 bits."""
    return errors.InvalidRequest("A value is out of range.") if isinstance(error, DataError | OverflowError) else None


def translate(error: exceptions.APIException) -> errors.RedriveError:
    """The tree's error for one of DRF's."""
    message = _first(error.detail)
    match error:
        case exceptions.ValidationError():
            param = next(iter(error.detail)) if isinstance(error.detail, dict) and error.detail else None
            return errors.InvalidRequest(message, param=param)
        case exceptions.NotAuthenticated() | exceptions.AuthenticationFailed():
            return errors.PermissionDenied("Log in at /admin/ first.")
        case exceptions.PermissionDenied():
            return errors.PermissionDenied("Your account may not do that.")
        case exceptions.NotFound():
            return errors.NotFound(message)
        case exceptions.MethodNotAllowed():
            return errors.MethodNotAllowed(message)
        case exceptions.UnsupportedMediaType():
            return errors.UnsupportedMediaType()
        case exceptions.Throttled():
            return errors.RateLimitExceeded(retry_after=getattr(error, "wait", None))
    return errors.InvalidRequest(message) if error.status_code < 500 else errors.InternalError()


def _first(detail: Any) -> str:
    while isinstance(detail, list | dict):
        detail = next(iter(detail.values() if isinstance(detail, dict) else detail), "")
    return str(detail)
