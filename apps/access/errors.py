"""The errors of access, as leaves of the tree in core/errors.py."""

from apps.core.errors import Conflict, InvalidRequest, ServiceUnavailable


class LimitsUnknown(ServiceUnavailable):
    """Redis is away: whether this may be spent cannot be told. No fault of the caller, nor of the upstream."""

    default_message = "The limits cannot be checked right now."


class IdempotencyKeyReused(InvalidRequest):
    code, status = "idempotency_key_reused", 422
    default_message = "This Idempotency-Key was used with another request body."


class IdempotencyInProgress(Conflict):
    code = "idempotency_in_progress"
    default_message = "The first request with this Idempotency-Key still runs."
