"""One attempt: calls the handler of a claimed task within its time, and says what came of it."""

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import structlog
from anyio import to_process
from pydantic import BaseModel, ValidationError

from apps.completions import stream_log
from apps.completions.ledger import Entry
from apps.core import error_payload, errors, field_paths, json_codec
from apps.core.database import LOST_CONNECTION
from apps.core.redis import RedisAway
from apps.tasks import kinds, policies, retry_policy, states
from apps.tasks.errors import ResultNotStorable
from apps.tasks.lifecycle.claim import Claimed
from apps.tasks.lifecycle.ending import Ending, failure_of
from apps.tasks.models import TaskAttempt
from apps.tasks.retry_policy import Decision, History

log = structlog.get_logger(__name__)

STORES_AWAY = (*LOST_CONNECTION, RedisAway)
R = TypeVar("R")
SOFT = 0.9  # of an attempt's time, at which its handler is told
Outcome = TaskAttempt.Outcome


@dataclass(slots=True)
class Run:
    """One attempt, as its handler sees it.

    soft_limit: set when nine tenths of its time are over. partial: what to keep as the result if the time runs out.
    told: the last progress as JSON text, until it is written. begun: the loop's monotonic time.
    """

    task: Claimed
    worker: UUID
    soft_limit: asyncio.Event = field(default_factory=asyncio.Event)
    entries: list[Entry] = field(default_factory=list)
    partial: dict[str, Any] | None = None
    told: str = ""
    begun: float = field(default_factory=time.monotonic)
    _log: stream_log.Writer | None = None

    def book(self, entry: Entry) -> None:
        """Keep the entry of one upstream request for the ledger."""
        self.entries.append(entry._replace(task_id=self.task.id, task_attempt=self.task.attempt))

    def text(self, text: str, choice: int = 0) -> None:
        """Show a piece of the answer to those who read along."""
        self._readers().text(text, choice)

    def progress(self, current: int, total: int, status: str = "") -> None:
        """Tell how far it is; `status` in a few words. Clients see it within half a second."""
        told = {"current": current, "total": total, "status": status[:200]}
        self.told = json_codec.ascii_dumps(told)
        self._readers().append({"type": "progress", "progress": told})

    async def in_process(self, function: Callable[..., R], *args: Any) -> R:
        """Call a function that blocks, or needs a processor for long, in a child process; what it returns or raises.

        The process is killed where the attempt ends before it. Function, arguments and result must be picklable; Django
        is not set up there. Raises anyio.BrokenWorkerProcess where the process died: the worker lives on.
        """
        _keep_main_to_ourselves()
        return await to_process.run_sync(function, *args, cancellable=True)

    def _readers(self) -> stream_log.Writer:
        if self._log is None:
            self._log = stream_log.Writer(stream_log.key(self.task.id.hex, self.task.attempt))
        return self._log

    async def close(self) -> None:
        """Give readers what waits, before the attempt's end is told."""
        if self._log is not None:
            await self._log.close()

    @property
    def upstream(self) -> str:
        """`provider/model` of the last upstream request, or empty."""
        if not self.entries:
            return ""
        return f"{self.entries[-1].provider}/{self.entries[-1].upstream_model}"


def _keep_main_to_ourselves() -> None:
    """The child would first run our main module by its path, which fails for that of `python -m celery`."""
    main = sys.modules["__main__"]
    if main.__package__:
        main.__file__ = None


class Wait(Exception):
    """Raised by a parent's handler: it is called again when a child's place is free, or all children have ended."""


async def perform(run: Run) -> Ending:
    """Call the handler, and say what came of it, whatever it raises. A cancelled one raises CancelledError."""
    policy = kinds.Policy()
    try:
        try:
            kind = kinds.find(run.task.kind)
            policy = await policies.of(kind)
            return await _within_its_time(run, kind)
        finally:
            await run.close()
    except (Exception, SystemExit) as error:  # a handler that exits must not take its neighbours along
        return _failed(run, error, policy)
    except asyncio.CancelledError as error:
        running = asyncio.current_task()
        if running is not None and running.cancelling():
            raise
        return _failed(run, error, policy)  # of the handler's own making: let out, the attempt would have no end


async def _within_its_time(run: Run, kind: kinds.Kind) -> Ending:
    task = run.task
    args = _arguments(kind, task)
    seconds = kind.limit if task.seconds_left is None else min(kind.limit, task.seconds_left)
    timer = asyncio.timeout(seconds)
    soft = asyncio.get_running_loop().call_later(seconds * SOFT, run.soft_limit.set)
    try:
        async with timer:
            result = await kind.handler(run, args)
    except Wait:
        return ending_of(run, Decision(states.WAITING, Outcome.WAITING))
    except TimeoutError:
        if not timer.expired():
            raise
        too_long = errors.Timeout("The task took longer than its kind or its deadline allows.")
        ending = ending_of(run, Decision(states.DEAD, Outcome.TIMED_OUT, charged=True))
        ending.failure = failure_of(too_long, kind=task.kind, upstream=run.upstream)
        ending.result = _storable({"status": "timeout", **(run.partial or {})})
        return ending
    finally:
        soft.cancel()
    return ending_of(run, Decision(states.SUCCEEDED, Outcome.SUCCEEDED), result=_storable(result))


def _arguments(kind: kinds.Kind, task: Claimed) -> BaseModel:
    args = kinds.upcast(kind, task.schema_version, task.arguments())
    try:
        return kind.args.model_validate(args)
    except ValidationError as error:
        first = error.errors()[0]
        raise field_paths.invalid(first, first["loc"], args) from None


def _failed(run: Run, error: BaseException, policy: kinds.Policy) -> Ending:
    task = run.task
    # A store that is away is no bug of the handler.
    error = error_payload.translate(error) or error if isinstance(error, STORES_AWAY) else error
    history = History(task.attempt, task.charged_failures, task.worker_losses, task.parked_for)
    decision = retry_policy.decide(error, history, policy)
    ending = ending_of(run, decision)
    ending.failure = failure_of(error, kind=task.kind, upstream=run.upstream)
    if decision.state == states.DEAD and isinstance(error, errors.BudgetExceeded | errors.ServiceUnavailable):
        unavailable = errors.ServiceUnavailable(f"It waited for {task.parked_for:.0f} s. {error.message}")
        ending.failure = failure_of(unavailable, kind=task.kind, upstream=run.upstream)
    if not isinstance(error, errors.RedriveError):
        log.error("handler_failed", exc_info=error)
    return ending


def ending_of(run: Run, decision: Decision, result: str | None = None) -> Ending:
    """The end of a run, with what it has booked and told. result: JSON text."""
    task = run.task
    return Ending(
        task_id=task.id,
        kind=task.kind,
        token=task.token,
        number=task.attempt,
        cycle=task.cycle,
        worker=run.worker,
        request_id=task.request_id,
        started_at=task.started_at,
        decision=decision,
        result=result,
        upstream=run.upstream,
        entries=run.entries,
        progress=run.told,
    )


def _storable(result: dict[str, Any]) -> str:
    try:
        return json_codec.ascii_dumps(result)
    except (TypeError, ValueError) as error:
        raise ResultNotStorable(f"The handler's result is not JSON: {error}") from error
