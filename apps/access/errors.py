"""The errors of Idempotency-Key, as leaves of the tree in core/errors.py."""

from apps.core.errors import Conflict, InvalidRequest


class IdempotencyKeyReused(InvalidRequest):
    code, status = "idempotency_key_reused", 422
    default_message = "This Idempotency-Key was used with another request body."


class IdempotencyInProgress(Conflict):
    code = "idempotency_in_progress"
    default_message = "The first request with this Idempotency-Key still runs."
