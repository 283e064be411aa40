"""What all of the operators' REST API share: logins, limits, the one error body, model permissions, keyset paging."""

from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from django.core.cache import caches
from django.db import DataError, models
from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from knox.auth import TokenAuthentication
from rest_framework import exceptions
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.parsers import JSONParser
from rest_framework.permissions import SAFE_METHODS, DjangoModelPermissions
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.throttling import SimpleRateThrottle

from apps.access import operator_tokens
from apps.core import error_payload, errors, json_codec, keyset, request_context

log = structlog.get_logger(__name__)


class NotLoggedIn(errors.InvalidApiKey):
    """Of whoever has shown neither a session nor a token that works."""

    challenge = 'Token realm="redrive"'
    default_message = "Log in at /admin/ first, or send `Authorization: Token ...` with an operator token that works."


class OperatorTokens(TokenAuthentication):  # type: ignore[misc]
    """`Authorization: Token ...`. Unlike knox's own it deletes nothing where it reads: the clock prunes."""

    def authenticate_credentials(self, token: bytes) -> tuple[Any, Any]:
        """(the person, the token's row). Raises AuthenticationFailed."""
        found = operator_tokens.find(token.decode("ascii", "replace"))
        if found is None:
            raise exceptions.AuthenticationFailed()
        return found.user, found


class OperatorTokensInSchema(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Tells drf-spectacular of the header."""

    target_class = OperatorTokens
    name = "operatorToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        """As OpenAPI names it."""
        words = "`Token ` and an operator token: made in the admin, or by `manage.py create_operator_token`."
        return {"type": "apiKey", "in": "header", "name": "Authorization", "description": words}


class ModelPermissions(DjangoModelPermissions):
    """Django's permissions, those to view included."""

    perms_map = {
        **DjangoModelPermissions.perms_map,
        **{method: ["%(app_label)s.view_%(model_name)s"] for method in ("GET", "HEAD", "OPTIONS")},
    }

    def get_required_permissions(self, method: str, model_cls: Any) -> list[str]:
        """Django's names, which a refusal then says."""
        found: list[str] = super().get_required_permissions(method, model_cls)
        self.message = f"Your account may not do that: it needs the permission {', '.join(found)}."
        return found


class _Throttle(SimpleRateThrottle):
    cache = caches["throttles"]  # in the process' memory: each gateway process counts for itself


class PerPerson(_Throttle):
    """What one person's sessions and tokens may ask for together."""

    scope = "person"

    def get_cache_key(self, request: Any, view: Any) -> str | None:
        """By the person; strangers are counted where they are refused."""
        return f"person-{request.user.pk}" if request.user and request.user.is_authenticated else None


class PerStranger(_Throttle):
    """How often one address may be told to log in; asked by `answer`, for permissions come before throttles."""

    scope = "stranger"

    def get_cache_key(self, request: Any, view: Any) -> str:
        """By the address that connects, or that the trusted proxies saw."""
        return f"stranger-{request_context.current().address or request.META.get('REMOTE_ADDR', '')}"


class StrictJson(JSONParser):
    """JSON as the client API reads it: no NaN, no lone surrogates, no absurd depth."""

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        """The value. Raises ParseError."""
        raw = stream.read()
        try:
            return json_codec.loads_strict(raw) if raw.strip() else {}
        except ValueError:
            raise exceptions.ParseError("The body is not JSON.") from None


class KnownFilters(DjangoFilterBackend):  # type: ignore[misc]
    """A view's filters. A slip in a name would list, and have a script decide, more than was meant: it is refused."""

    def filter_queryset(self, request: Any, queryset: Any, view: Any) -> Any:
        """What matches. Raises InvalidRequest for a parameter that a list or a page does not know."""
        filters = getattr(self.get_filterset_class(view, queryset), "base_filters", {})
        known = [*filters, NewestFirst.page_size_query_param, NewestFirst.cursor_query_param]
        for name in request.query_params if request.method in SAFE_METHODS else ():
            if name not in known and name != api_settings.URL_FORMAT_OVERRIDE:
                raise errors.InvalidRequest(f"There is no such parameter. There are: {', '.join(known)}.", param=name)
        return super().filter_queryset(request, queryset, view)


class NewestFirst(CursorPagination):
    """Pages through an index, newest first, never counted.

    A page begins after the last row of the one before: (created_at, id), or what a view's `page_order` names. Rows of
    the same moment, which one transaction makes by the thousand, are told apart by the last field, which is unique.
    """

    ordering = ("-created_at", "-id")
    page_size_query_param = "limit"
    max_page_size = 500
    cursor_query_description = "Where the page begins, as `next` and `previous` of a page say."
    page_size_query_description = "Rows of a page: 50, at most 500."
    _places: tuple[str | None, str | None] = (None, None)  # previous, next

    def get_page_size(self, request: Any) -> int:
        """Rows of a page. Raises InvalidRequest."""
        asked = request.query_params.get(self.page_size_query_param, str(self.page_size))
        if not (asked.isascii() and asked.isdigit() and int(asked[:9])):
            raise errors.InvalidRequest(f"From 1 to {self.max_page_size}.", param=self.page_size_query_param)
        return min(int(asked[:9]), self.max_page_size)

    def get_ordering(self, request: Any, queryset: Any, view: Any) -> tuple[str, ...]:
        """The view's own order, else that of the class; all of it downwards."""
        return tuple(getattr(view, "page_order", self.ordering))

    def paginate_queryset(self, queryset: Any, request: Any, view: Any = None) -> list[Any]:
        """One page, by one query. Raises NotFound for a cursor that was never given."""
        self.request, self.base_url = request, request.build_absolute_uri()
        order = self.get_ordering(request, queryset, view)
        size = self.get_page_size(request)
        names = [name.removeprefix("-") for name in order]
        cursor = self.decode_cursor(request) or Cursor(offset=0, reverse=False, position=None)
        if cursor.position is not None:
            values = self._values(queryset.model, names, str(cursor.position))
            queryset = keyset.beyond(queryset, names, values, "gt" if cursor.reverse else "lt")
        rows = list(queryset.order_by(*(names if cursor.reverse else order))[: size + 1])
        has_more, rows = len(rows) > size, rows[:size]
        if cursor.reverse:
            rows.reverse()
        came_from = cursor.position is not None
        has_newer, has_older = (has_more, came_from) if cursor.reverse else (came_from, has_more)
        ends = (rows[0], rows[-1]) if rows else (None, None)
        self._places = (
            self._link(ends[0], names, reverse=True) if has_newer else None,
            self._link(ends[1], names, reverse=False) if has_older else None,
        )
        return rows

    def get_previous_link(self) -> str | None:
        """The address of the page with newer rows."""
        return self._places[0]

    def get_next_link(self) -> str | None:
        """The address of the page with older rows."""
        return self._places[1]

    def _link(self, row: Any, names: list[str], *, reverse: bool) -> str | None:
        if row is None:
            return None
        values = (getattr(row, name) for name in names)
        shown = [value.isoformat() if isinstance(value, datetime) else str(value) for value in values]
        place = Cursor(0, reverse, "|".join(shown))  # type: ignore[arg-type]
        return self.encode_cursor(place)

    def _values(self, model: type[models.Model], names: list[str], position: str) -> list[Any]:
        texts = position.split("|", len(names) - 1)
        try:
            return [_value(model._meta.get_field(name), text) for name, text in zip(names, texts, strict=True)]
        except ValueError:
            raise exceptions.NotFound(self.invalid_cursor_message) from None


def _value(field: Any, text: str) -> Any:
    if isinstance(field, models.DateTimeField):
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("a moment without its zone is none")
        return moment
    return UUID(text) if isinstance(field, models.UUIDField) else text


def answer(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's EXCEPTION_HANDLER: any exception as the one body."""
    from rest_framework.views import set_rollback  # which itself imports the classes above

    set_rollback()
    known = error_payload.translate(error) or (translate(error) if isinstance(error, exceptions.APIException) else None)
    known = known or bad_value(error)
    if isinstance(known, NotLoggedIn):
        known = _too_many(context) or known
    if known is None:
        log.error("unhandled_error", exc_info=error)
        known = errors.InternalError()
    body = error_payload.payload(known, request_context.current().request_id)
    return Response(body, status=known.status, headers=error_payload.headers(known))


def _too_many(context: dict[str, Any]) -> errors.RedriveError | None:
    throttle = PerStranger()
    if throttle.allow_request(context["request"], context["view"]):
        return None
    return errors.RateLimitExceeded("Too many requests without a login.", retry_after=throttle.wait())


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
            return NotLoggedIn()
        case exceptions.PermissionDenied():
            return errors.PermissionDenied(_denied(message))
        case exceptions.NotFound():
            return errors.NotFound(message)
        case exceptions.MethodNotAllowed():
            return errors.MethodNotAllowed(message)
        case exceptions.UnsupportedMediaType():
            return errors.UnsupportedMediaType()
        case exceptions.Throttled():
            return errors.RateLimitExceeded(retry_after=getattr(error, "wait", None))
    return errors.InvalidRequest(message) if error.status_code < 500 else errors.InternalError()


def _denied(message: str) -> str:
    if message.startswith("CSRF"):
        return f"{message} Send the cookie's value as X-CSRFToken, or use an operator token."
    return "Your account may not do that." if message == exceptions.PermissionDenied.default_detail else message


def _first(detail: Any) -> str:
    while isinstance(detail, list | dict):
        detail = next(iter(detail.values() if isinstance(detail, dict) else detail), "")
    return str(detail)
