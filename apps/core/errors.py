"""The one error tree: a class answers once for code, HTTP status and whether a retry can help.

    RedriveError
    ├── InvalidRequest            400 validation_error (param: path of the field)
    │   ├── ContextLengthExceeded 400 context_length_exceeded
    │   └── ContentFiltered       400 content_filtered
    ├── InvalidApiKey             401 invalid_api_key
    ├── BudgetExceeded            402 budget_exceeded
    ├── PermissionDenied          403 permission_denied
    ├── NotFound                  404 not_found
    │   └── ModelNotFound         404 model_not_found
    ├── MethodNotAllowed          405 method_not_allowed
    ├── Conflict                  409 conflict
    ├── PayloadTooLarge           413 payload_too_large
    ├── UnsupportedMediaType      415 unsupported_media_type
    ├── RateLimitExceeded         429 rate_limit_exceeded (retry_after)
    ├── InternalError             500 internal_error
    ├── ServiceUnavailable        503 service_unavailable (retry_after)
    ├── Timeout                   504 timeout
    └── UpstreamError             502 model_error       (apps/providers/errors.py holds its kinds)

The class serves the HTTP body, the SSE frame, the retry rule and the grouping of failures. Apps add leaves in
their own `errors.py`; nothing else in the project invents a status or a code.
"""

from typing import Any, ClassVar

TYPE_BY_STATUS = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    429: "rate_limit_error",
}


def type_of(status: int) -> str:
    """The `type` in OpenAI's envelope of an HTTP status."""
    return TYPE_BY_STATUS.get(status) or ("server_error" if status >= 500 else "invalid_request_error")


class RedriveError(Exception):
    """An answer other than success.

    message: for the client, safe to show. param: path of the request's field at fault. details: JSON object.
    retry_after: seconds until a retry can help, None if unknown. should_retry: overrides what the client's SDK
    would do by itself (sent as `x-should-retry`), None to leave it to the status.
    """

    code: ClassVar[str] = "internal_error"
    status: int = 500
    retryable: bool = False
    upstream_status: int | None = None  # HTTP status of the upstream's answer behind this error, for the ledger
    default_message: ClassVar[str] = "Something went wrong on our side."

    def __init__(
        self,
        message: str = "",
        *,
        param: str | None = None,
        details: dict[str, Any] | None = None,
        retry_after: float | None = None,
        should_retry: bool | None = None,
    ) -> None:
        self.message = message or self.default_message
        super().__init__(self.message)
        self.param = param
        self.details = details
        self.retry_after = retry_after
        self.should_retry = should_retry

    @property
    def type(self) -> str:
        """The error's `type` in OpenAI's envelope, which follows from the status."""
        return type_of(self.status)


class InvalidRequest(RedriveError):
    code, status = "validation_error", 400
    default_message = "The request is not valid."


class ContextLengthExceeded(InvalidRequest):
    code = "context_length_exceeded"
    default_message = "The request does not fit the model's context window."


class ContentFiltered(InvalidRequest):
    code = "content_filtered"
    default_message = "The provider's content filter refused the request."


class InvalidApiKey(RedriveError):
    code, status = "invalid_api_key", 401
    challenge: ClassVar[str] = 'Bearer realm="redrive"'
    default_message = "The API key is missing, unknown, expired or disabled. Send it as `Authorization: Bearer rd_...`."


class BudgetExceeded(RedriveError):
    code, status = "budget_exceeded", 402
    default_message = "The monthly budget is used up."


class PermissionDenied(RedriveError):
    code, status = "permission_denied", 403
    default_message = "This API key may not do that."


class NotFound(RedriveError):
    code, status = "not_found", 404
    default_message = "There is nothing at this address."


class ModelNotFound(NotFound):
    code = "model_not_found"
    default_message = "This model does not exist or is not enabled."


class MethodNotAllowed(RedriveError):
    code, status = "method_not_allowed", 405
    default_message = "This address does not answer to that method."


class Conflict(RedriveError):
    code, status = "conflict", 409
    default_message = "The request conflicts with the present state."


class PayloadTooLarge(RedriveError):
    code, status = "payload_too_large", 413
    default_message = "The request body is too large."


class UnsupportedMediaType(RedriveError):
    code, status = "unsupported_media_type", 415
    default_message = "Send the body as application/json."


class RateLimitExceeded(RedriveError):
    code, status, retryable = "rate_limit_exceeded", 429, True
    default_message = "Too many requests."


class InternalError(RedriveError):
    pass


class ServiceUnavailable(RedriveError):
    code, status, retryable = "service_unavailable", 503, True
    default_message = "The service cannot answer right now. Try again."

    def __init__(self, message: str = "", *, retry_after: float | None = 1, **more: Any) -> None:
        details = {"retry_after": retry_after, **(more.pop("details", None) or {})}
        super().__init__(message, retry_after=retry_after, details=details, **more)


class Timeout(RedriveError):
    code, status = "timeout", 504
    default_message = "It took too long."


class UpstreamError(RedriveError):
    """The provider failed us. `retryable` says whether another try, or another upstream, can help."""

    code, status, retryable = "model_error", 502, True
    default_message = "The model's provider failed."
