"""Why a socket is closed: the code and reason of the close frame, and the error that is sent before it.

4400 and above are ours (after graphql-transport-ws), the others are of RFC 6455 and its registry at IANA.
"""

from apps.core import errors

IDLE = 1000
BINARY = 1003
TRY_AGAIN_LATER = 1013
BAD_MESSAGE = 4400
UNAUTHORISED = 4401
INIT_TIMEOUT = 4408
DUPLICATE_STREAM = 4409
TOO_MANY = 4429

REASONS = {
    IDLE: "idle",
    BINARY: "binary frame",
    TRY_AGAIN_LATER: "try again later",
    BAD_MESSAGE: "bad message",
    UNAUTHORISED: "unauthorised",
    INIT_TIMEOUT: "connection_init timeout",
    DUPLICATE_STREAM: "duplicate stream_id",
    TOO_MANY: "too many",
}


class CloseSocket(Exception):
    """The socket is to be closed with this code, after this error."""

    def __init__(self, code: int, error: errors.RedriveError) -> None:
        super().__init__(error.message)
        self.code = code
        self.error = error

    @property
    def reason(self) -> str:
        """For the close frame, which holds 123 bytes."""
        return REASONS[self.code]


def refused(error: errors.RedriveError) -> CloseSocket:
    """The end of a socket whose key was not accepted; `error` says why."""
    if isinstance(error, errors.InvalidApiKey):
        return CloseSocket(UNAUTHORISED, error)
    return CloseSocket(TOO_MANY if error.status == 429 else TRY_AGAIN_LATER, error)


def too_slow(seconds: float) -> CloseSocket:
    """The end of a socket whose client does not read."""
    return CloseSocket(TRY_AGAIN_LATER, errors.Timeout(f"Nothing was read for {seconds:g} seconds."))


def idle(seconds: float) -> CloseSocket:
    """The end of a socket that nobody uses."""
    return CloseSocket(IDLE, errors.Timeout(f"Nothing happened for {seconds:g} seconds."))
