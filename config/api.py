"""The client API under /v1: mounts the routers, authenticates, and maps every error to the one body."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import HttpError, ValidationError
from ninja.parser import Parser
from ninja.security.http import HttpAuthBase

from apps.access.authentication import Caller
from apps.access.way_in import identify
from apps.completions.api import router as completions
from apps.core import errors, field_paths, json_codec, lean_asgi, request_context
from apps.tasks.api import router as tasks
from apps.webhooks.api import router as webhooks

DESCRIPTION = """An OpenAI-compatible gateway. Use the official SDK with `base_url` set to this address.

Every reply carries `x-request-id`; every error has the body
`{"error": {message, type, param, code, request_id, details}}`."""


class ApiKeyAuth(HttpAuthBase):
    """`Authorization: Bearer rd_...`"""

    openapi_scheme = "bearer"

    async def __call__(self, request: HttpRequest) -> Caller:
        known: Caller | None = request_context.current().caller
        return known or await identify(request.META.get("HTTP_AUTHORIZATION", ""))


class JSONParser(Parser):
    """Bodies are JSON objects in UTF-8; what is none is refused before it is validated."""

    def parse_body(self, request: HttpRequest) -> Any:
        content_type = request.content_type or "application/json"
        if content_type != "application/json" and not content_type.endswith("+json"):
            raise errors.UnsupportedMediaType()
        body = getattr(request, "parsed_json", None)
        if body is None:
            try:
                body = json_codec.loads_strict(request.body)
            except ValueError:
                raise errors.InvalidRequest("The body is not valid JSON.") from None
        if not isinstance(body, dict):
            raise errors.InvalidRequest("The body must be a JSON object.")
        request.parsed_json = body  # type: ignore[attr-defined]
        return body


class RedriveAPI(NinjaAPI):
    """Ninja without the response that it makes for each request in case a view wants to set headers on it."""

    def create_temporal_response(self, request: HttpRequest) -> HttpResponse:
        return _UNUSED


_UNUSED = HttpResponse()
api = RedriveAPI(
    title="Redrive",
    version="1",
    description=DESCRIPTION,
    urls_namespace="v1",
    auth=ApiKeyAuth(),
    parser=JSONParser(),
    docs_url="/docs",
    openapi_url="/openapi.json",
)
api.add_router("", completions)
api.add_router("/tasks", tasks)
api.add_router("/tasks", webhooks)


@api.exception_handler(ValidationError)
def invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    """Pydantic's first complaint, with the path of the field as the client wrote it."""
    first = error.errors[0]
    if first["loc"] == ("body", "payload"):
        return lean_asgi.render(errors.InvalidRequest("The body must be a JSON object."))
    is_in_body = first["loc"][:1] == ("body",)
    location = first["loc"][2:] if is_in_body else first["loc"][1:]  # without Ninja's frame
    value = getattr(request, "parsed_json", None) if is_in_body else request.GET
    return lean_asgi.render(field_paths.invalid(first, location, value))


@api.exception_handler(HttpError)
def refused(request: HttpRequest, error: HttpError) -> HttpResponse:
    """A body that JSONParser refused; Ninja wraps its reason."""
    reason = error.__cause__ or error.__context__
    return lean_asgi.render(reason if isinstance(reason, errors.RedriveError) else errors.InvalidRequest())


@api.exception_handler(Exception)
def failed(request: HttpRequest, error: Exception) -> HttpResponse:
    """Everything else: the tree's errors as they are, stores away as 503, bugs as 500."""
    return lean_asgi.respond_to(error)
