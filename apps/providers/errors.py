"""The kinds of upstream failure, each with what it means for retries, other upstreams and the circuit breaker.

UpstreamError (core)          502 model_error
├── UpstreamRefused           the upstream's own 400/404/409/413/422, model_error
├── UpstreamRateLimited       429 model_error, Retry-After
├── UpstreamTimeout           504 timeout
├── UpstreamCredentials       502 upstream_credentials_exhausted
├── UpstreamUnreachable       502 model_error: no connection, or it broke before an answer
├── UpstreamBroken            502 model_error: 5xx, invalid JSON, 200 with an error inside
└── StreamInterrupted         502 model_error: it ended without the upstream's terminal event
"""

from typing import Any

from apps.core.errors import UpstreamError


class UpstreamRefused(UpstreamError):
    """The upstream says that the request is wrong; its status passes, its message is cleaned."""

    retryable = False

    def __init__(self, message: str, *, status: int, **more: Any) -> None:
        super().__init__(message, **more)
        self.status = status


class UpstreamRateLimited(UpstreamError):
    status = 429
    default_message = "The model's provider limits the rate of requests."


class UpstreamTimeout(UpstreamError):
    code, status = "timeout", 504
    default_message = "The model's provider did not answer in time."


class UpstreamCredentials(UpstreamError):
    """401, 402, 403: our key there is refused or out of funds. Another upstream may do, the same one will not."""

    code, retryable = "upstream_credentials_exhausted", False
    default_message = "The gateway's account with the model's provider is refused or used up."


class UpstreamUnreachable(UpstreamError):
    default_message = "The model's provider cannot be reached."


class UpstreamBroken(UpstreamError):
    default_message = "The model's provider failed to answer."


class StreamInterrupted(UpstreamError):
    default_message = "The model's provider cut the stream off before its end."
