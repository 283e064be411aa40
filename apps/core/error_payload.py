"""Renders any error as the one body and headers that every way in sends."""

import math
from typing import Any, Protocol

from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.http import Http404
from redis.exceptions import RedisError

from apps.core import errors
from apps.core.database import LOST_CONNECTION
from apps.core.redis import RedisAway


class Shown(Protocol):
    """What clients see of an error."""

    @property
    def message(self) -> str:
        """For people."""

    @property
    def type(self) -> str:
        """Its family, as OpenAI names them."""

    @property
    def param(self) -> str | None:
        """The field that does not fit."""

    @property
    def code(self) -> str:
        """For programs."""

    @property
    def details(self) -> dict[str, Any] | None:
        """What else there is to know."""


def inner(error: Shown, request_id: str) -> dict[str, Any]:
    """`{message, type, param, code, request_id, details}`."""
    return {
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
        "request_id": request_id,
        "details": error.details,
    }


def payload(error: errors.RedriveError, request_id: str) -> dict[str, Any]:
    """The body: the inner object under `error`."""
    return {"error": inner(error, request_id)}


def headers(error: errors.RedriveError) -> dict[str, str]:
    """Retry-After (whole seconds, rounded up), retry-after-ms and x-should-retry, where they apply."""
    found: dict[str, str] = {}
    if error.retry_after is not None:
        found["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
        found["retry-after-ms"] = str(max(1, math.ceil(error.retry_after * 1000)))
    if error.should_retry is not None:
        found["x-should-retry"] = "true" if error.should_retry else "false"
    if isinstance(error, errors.InvalidApiKey):
        found["WWW-Authenticate"] = error.challenge
    return found


def translate(error: BaseException) -> errors.RedriveError | None:
    """The RedriveError that stands for an exception of Django or of a store; None if it is a bug of ours."""
    if isinstance(error, errors.RedriveError):
        return error
    if isinstance(error, Http404):
        return errors.NotFound()
    if isinstance(error, DjangoPermissionDenied):
        return errors.PermissionDenied()
    if isinstance(error, RequestDataTooBig):
        return errors.PayloadTooLarge()
    if isinstance(error, SuspiciousOperation | UnicodeError):
        return errors.InvalidRequest()
    if isinstance(error, LOST_CONNECTION):
        return errors.ServiceUnavailable("The database does not answer right now.")
    if isinstance(error, RedisAway | RedisError | ConnectionError | TimeoutError):
        return errors.ServiceUnavailable()
    return None
