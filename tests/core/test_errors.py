"""The one error tree against the table of the contract."""

from typing import Any

import psycopg
import pytest
import redis
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404
from psycopg_pool import PoolTimeout

from apps.core import error_payload, errors
from apps.core.redis import RedisAway
from apps.providers import errors as upstream_errors

CONTRACT: list[tuple[type[errors.RedriveError], int, str, str, bool]] = [
    (errors.InvalidRequest, 400, "validation_error", "invalid_request_error", False),
    (errors.ContextLengthExceeded, 400, "context_length_exceeded", "invalid_request_error", False),
    (errors.ContentFiltered, 400, "content_filtered", "invalid_request_error", False),
    (errors.InvalidApiKey, 401, "invalid_api_key", "authentication_error", False),
    (errors.BudgetExceeded, 402, "budget_exceeded", "insufficient_quota", False),
    (errors.PermissionDenied, 403, "permission_denied", "permission_error", False),
    (errors.NotFound, 404, "not_found", "invalid_request_error", False),
    (errors.ModelNotFound, 404, "model_not_found", "invalid_request_error", False),
    (errors.MethodNotAllowed, 405, "method_not_allowed", "invalid_request_error", False),
    (errors.Conflict, 409, "conflict", "invalid_request_error", False),
    (errors.PayloadTooLarge, 413, "payload_too_large", "invalid_request_error", False),
    (errors.UnsupportedMediaType, 415, "unsupported_media_type", "invalid_request_error", False),
    (errors.RateLimitExceeded, 429, "rate_limit_exceeded", "rate_limit_error", True),
    (errors.InternalError, 500, "internal_error", "server_error", False),
    (errors.ServiceUnavailable, 503, "service_unavailable", "server_error", True),
    (errors.Timeout, 504, "timeout", "server_error", False),
    (errors.UpstreamError, 502, "model_error", "server_error", True),
    (upstream_errors.UpstreamRateLimited, 429, "model_error", "rate_limit_error", True),
    (upstream_errors.UpstreamTimeout, 504, "timeout", "server_error", True),
    (upstream_errors.UpstreamCredentials, 502, "upstream_credentials_exhausted", "server_error", False),
    (upstream_errors.UpstreamUnreachable, 502, "model_error", "server_error", True),
    (upstream_errors.UpstreamBroken, 502, "model_error", "server_error", True),
    (upstream_errors.StreamInterrupted, 502, "model_error", "server_error", True),
]


@pytest.mark.parametrize(("kind", "status", "code", "type_", "retryable"), CONTRACT)
def test_a_class_answers_once_for(
    kind: type[errors.RedriveError], status: int, code: str, type_: str, retryable: bool
) -> None:
    error = kind()
    assert (error.status, error.code, error.type, error.retryable) == (status, code, type_, retryable)
    assert error.message == str(error) == kind.default_message


def test_the_contract_names_every_class() -> None:
    def leaves(kind: type[errors.RedriveError]) -> set[type[errors.RedriveError]]:
        return {kind}.union(*map(leaves, kind.__subclasses__()))

    named = {row[0] for row in CONTRACT} | {errors.RedriveError, upstream_errors.UpstreamRefused}
    ours = {
        kind for kind in leaves(errors.RedriveError) if kind.__module__ in {errors.__name__, upstream_errors.__name__}
    }
    assert ours == named


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
def test_an_upstreams_refusal_has_its_status_and_the_type_of_it(status: int) -> None:
    error = upstream_errors.UpstreamRefused("no", status=status)
    assert (error.status, error.code, error.type) == (status, "model_error", "invalid_request_error")


def test_the_body_has_all_keys_whatever_is_known() -> None:
    assert error_payload.payload(errors.NotFound(), "req_1") == {
        "error": {
            "message": "There is nothing at this address.",
            "type": "invalid_request_error",
            "param": None,
            "code": "not_found",
            "request_id": "req_1",
            "details": None,
        }
    }


def test_the_body_says_what_is_known() -> None:
    error = errors.InvalidRequest("no", param="messages[0].content", details={"most": 5})
    inner = error_payload.payload(error, "req_1")["error"]
    assert (inner["message"], inner["param"], inner["details"]) == ("no", "messages[0].content", {"most": 5})


@pytest.mark.parametrize(
    ("seconds", "whole", "milliseconds"),
    [(0, "1", "1"), (0.2, "1", "200"), (1, "1", "1000"), (1.0001, "2", "1001"), (59.5, "60", "59500")],
)
def test_a_wait_is_told_in_whole_seconds_and_in_milliseconds(seconds: float, whole: str, milliseconds: str) -> None:
    headers = error_payload.headers(errors.RateLimitExceeded(retry_after=seconds))
    assert (headers["Retry-After"], headers["retry-after-ms"]) == (whole, milliseconds)


@pytest.mark.parametrize(("should_retry", "expected"), [(True, "true"), (False, "false"), (None, None)])
def test_a_client_is_told_whether_to_retry_where_we_know(should_retry: bool | None, expected: str | None) -> None:
    assert error_payload.headers(errors.UpstreamError(should_retry=should_retry)).get("x-should-retry") == expected


def test_a_refused_key_names_the_scheme() -> None:
    assert error_payload.headers(errors.InvalidApiKey())["WWW-Authenticate"].startswith("Bearer")


def test_an_unavailable_service_says_when_to_come_again() -> None:
    error = errors.ServiceUnavailable(retry_after=7, details={"why": "x"})
    assert error.details == {"retry_after": 7, "why": "x"}
    assert error_payload.headers(error)["Retry-After"] == "7"
    assert errors.ServiceUnavailable().retry_after == 1


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (Http404("x"), errors.NotFound),
        (DjangoPermissionDenied("x"), errors.PermissionDenied),
        (RequestDataTooBig("x"), errors.PayloadTooLarge),
        (SuspiciousOperation("x"), errors.InvalidRequest),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), errors.InvalidRequest),
        (OperationalError("x"), errors.ServiceUnavailable),
        (InterfaceError("x"), errors.ServiceUnavailable),
        (psycopg.OperationalError("x"), errors.ServiceUnavailable),
        (psycopg.InterfaceError("x"), errors.ServiceUnavailable),
        (PoolTimeout("x"), errors.ServiceUnavailable),
        (redis.ConnectionError("x"), errors.ServiceUnavailable),
        (redis.TimeoutError("x"), errors.ServiceUnavailable),
        (RedisAway("x"), errors.ServiceUnavailable),
        (ConnectionResetError("x"), errors.ServiceUnavailable),
        (TimeoutError("x"), errors.ServiceUnavailable),
        (errors.Conflict("x"), errors.Conflict),
    ],
)
def test_what_django_and_the_stores_raise_becomes(raised: Exception, expected: type[errors.RedriveError]) -> None:
    error = error_payload.translate(raised)
    assert type(error) is expected


@pytest.mark.parametrize("secret", ["host=10.0.0.1 user=redrive", "SELECT * FROM x"])
def test_a_stores_message_is_not_passed_on(secret: str) -> None:
    for raised in (OperationalError(secret), redis.ConnectionError(secret), Http404(secret), TimeoutError(secret)):
        error = error_payload.translate(raised)
        assert error is not None
        assert secret not in str(error_payload.payload(error, ""))


@pytest.mark.parametrize("bug", [KeyError("x"), ZeroDivisionError(), AssertionError(), RuntimeError("x")])
def test_a_bug_of_ours_is_nobody_elses_error(bug: Any) -> None:
    assert error_payload.translate(bug) is None
