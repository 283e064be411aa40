"""What an attempt came to, as plain values: made by the executor and the reaper, written by `finish`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from apps.completions.ledger import Entry
from apps.core import error_payload, errors
from apps.core.database import storable
from apps.tasks import fingerprint
from apps.tasks.retry_policy import Decision

MAX_MESSAGE = 2000  # characters


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as it is kept: the client's view of it, and what operators group and read.

    message, traceback: as Postgres can hold them.
    """

    code: str
    status: int | None
    message: str
    type: str = "server_error"
    param: str | None = None
    details: dict[str, Any] | None = None
    fingerprint: str = ""
    traceback: str = ""

    def inner(self, request_id: str) -> dict[str, Any]:
        """The inner error object of the one error body."""
        return error_payload.inner(self, request_id)


@dataclass(slots=True)
class Ending:
    """The end of one attempt. result, progress: JSON text."""

    task_id: UUID
    kind: str
    token: int
    number: int
    cycle: int
    worker: UUID
    request_id: str
    started_at: datetime
    decision: Decision
    failure: Failure | None = None
    result: str | None = None
    upstream: str = ""
    entries: Sequence[Entry] = field(default_factory=tuple)
    progress: str = ""


def failure_of(error: BaseException, *, kind: str, upstream: str) -> Failure:
    """The failure that an exception stands for; one that is no RedriveError is a bug, with its traceback."""
    known = error if isinstance(error, errors.RedriveError) else errors.InternalError()
    message = storable(known.message if error is known else _words(error))
    frames = fingerprint.own_frames(error.__traceback__) if error is not known else ()
    code = known.code
    status = known.upstream_status or known.status
    return Failure(
        code=code,
        status=status,
        # Clients see a bug's class and nothing more; its words may hold anything.
        message=(message if error is known else type(error).__name__)[:MAX_MESSAGE],
        type=known.type,
        param=known.param,
        details=known.details,
        fingerprint=fingerprint.compute(
            kind=kind, upstream=upstream, code=code, status=status, message=message, frames=frames
        ),
        traceback=storable(fingerprint.traceback_text(error)),
    )


def _words(error: BaseException) -> str:
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except Exception:  # of whoever wrote its __str__
        return name
