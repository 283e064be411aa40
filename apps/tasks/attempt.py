"""One attempt: calls the handler of a claimed task within its time, and says what came of it."""

import asyncio
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog
from pydantic import ValidationError

from apps.completions.ledger import Entry
from apps.core import errors, json_codec
from apps.tasks import kinds, policies, retry_policy, states
from apps.tasks.errors import ResultNotStorable
from apps.tasks.lifecycle.claim import Claimed
from apps.tasks.lifecycle.ending import Ending, failure_of
from apps.tasks.models import TaskAttempt
from apps.tasks.retry_policy import Decision, History

log = structlog.get_logger(__name__)

SOFT = 0.9  # of an attempt's time, at which its handler is told
Outcome = TaskAttempt.Outcome


@dataclass(slots=True)
class Run:
    """One attempt, as its handler sees it.

    soft_limit: set when nine tenths of its time are over. book: give it the ledger entries of upstream requests; they
    are written when the attempt ends. partial: what to keep as the result if the time runs out.
    """

    task: Claimed
    worker: UUID
    soft_limit: asyncio.Event = field(default_factory=asyncio.Event)
    entries: list[Entry] = field(default_factory=list)
    partial: dict[str, Any] | None = None

    def book(self, entry: Entry) -> None:
        """Keep the entry of one upstream request for the ledger."""
        self.entries.append(entry)

    @property
    def upstream(self) -> str:
        """`provider/model` of the last upstream request, or empty."""
        if not self.entries:
            return ""
        return f"{self.entries[-1].provider}/{self.entries[-1].upstream_model}"


async def perform(run: Run) -> Ending:
    """Call the handler, and say what came of it."""
    task = run.task
    policy = kinds.Policy()
    timer = asyncio.timeout(None)
    try:
        kind = kinds.find(task.kind)
        policy = await policies.of(kind)
        args = kind.args.model_validate(kinds.upcast(kind, task.schema_version, task.arguments()))
        soft = asyncio.get_running_loop().call_later(kind.limit * SOFT, run.soft_limit.set)
        try:
            async with asyncio.timeout(kind.limit) as timer:
                result = await kind.handler(run, args)
        finally:
            soft.cancel()
        return ending_of(run, Decision(states.SUCCEEDED, Outcome.SUCCEEDED), result=_storable(result))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return _failed(run, errors.InvalidRequest(f"{where}: {first['msg']}", param=where or None), policy)
    except TimeoutError as error:
        if not timer.expired():
            return _failed(run, error, policy)
        ending = ending_of(run, Decision(states.DEAD, Outcome.TIMED_OUT, charged=True))
        ending.failure = failure_of(
            errors.Timeout("The task took longer than its kind allows."), kind=task.kind, upstream=run.upstream
        )
        ending.result = _storable({"status": "timeout", **(run.partial or {})})
        return ending
    except Exception as error:
        return _failed(run, error, policy)
    except (asyncio.CancelledError, SystemExit, KeyboardInterrupt) as error:
        running = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and running is not None and running.cancelling():
            raise
        # Raised by the handler itself: let out, it would end the worker, or the attempt without an end.
        bug = RuntimeError(f"The handler raised {type(error).__name__}.")
        bug.__cause__ = error
        return _failed(run, bug, policy)


def _failed(run: Run, error: Exception, policy: kinds.Policy) -> Ending:
    task = run.task
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
    task = run.task
    return Ending(
        task_id=task.id,
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
    )


def _storable(result: dict[str, Any]) -> str:
    try:
        return json_codec.ascii_dumps(result)
    except (TypeError, ValueError) as error:
        raise ResultNotStorable(f"The handler's result is not JSON: {error}") from error
