"""The errors of webhooks, as leaves of the tree in core/errors.py."""

from apps.core.errors import Conflict, NotFound, RedriveError


class DeliveryFailed(RedriveError):
    """The receiver did not take the event, whatever it said: it is tried again until the delays are used up."""

    code, status, retryable = "webhook_failed", 502, True
    default_message = "The webhook could not be delivered."

    def __init__(self, message: str = "", *, answered: int | None = None) -> None:
        super().__init__(message)
        self.upstream_status = answered


class EventNotFound(NotFound):
    default_message = "There is no such webhook event."


class SecretExists(Conflict):
    default_message = "The project has a webhook secret already: rotate it."


class NoSecret(Conflict):
    default_message = "The project has no webhook secret."


class UrlIsDisabled(Conflict):
    default_message = "The URL is disabled because it answered 410. An operator can enable it again."
