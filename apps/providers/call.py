"""The whole policy of one call: which upstream, how long, how often, and when to give up.

Each try goes to the next healthy upstream, to the same one only if it is the last; retries happen before the
first content only. Every upstream request is told to `record`, in the order they ended: one ledger row each.
"""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from apps.core import errors, request_context
from apps.core.metrics import UPSTREAM_REQUESTS
from apps.providers import adapters, circuit_breaker, routing
from apps.providers.contract import (
    Answer,
    Attempt,
    Json,
    Operation,
    ProviderConfig,
    RouteConfig,
    UpstreamConfig,
)
from apps.providers.errors import (
    StreamInterrupted,
    UpstreamCredentials,
    UpstreamRateLimited,
    UpstreamTimeout,
)
from apps.providers.open_stream import OpenStream
from apps.providers.retry_budget import RetryBudget
from apps.providers.upstream_choice import Lease, choose, judge

log = structlog.get_logger(__name__)
T = TypeVar("T")

TRIES = 3
BACKOFF_BASE, BACKOFF_CAP = 1.0, 60.0  # seconds
LONGEST_WAIT = 10.0  # seconds a live caller is kept for a Retry-After; a longer one is passed on to it

Body = Callable[[UpstreamConfig], Json]
Record = Callable[[Attempt], None]

_budgets: dict[str, RetryBudget] = defaultdict(RetryBudget)


@dataclass(slots=True)
class Call:
    """One call of a route.

    body: makes the JSON for an upstream (its model's name differs). record: told of each failed upstream request;
    the one that succeeds is the caller's to record, who alone knows what it used. tries: upstream requests in all.
    repeat: whether the last upstream may be tried again; tasks retry by themselves, minutes later if need be.
    """

    route: RouteConfig
    operation: Operation
    body: Body
    record: Record
    tries: int = TRIES
    repeat: bool = True
    attempts: int = 0
    deadline: float = field(default=0.0)

    async def answer(self) -> tuple[Attempt, Answer]:
        """The whole answer of the first upstream that gives one. Raises UpstreamError or ServiceUnavailable."""

        async def send(attempt: Attempt, upstream: UpstreamConfig, within: float) -> Answer:
            adapter = adapters.for_kind(upstream.provider.kind)
            answer = await adapter.send(upstream, self.operation, self.body(upstream), within=within)
            attempt.status, attempt.upstream_request_id = answer.status, answer.upstream_request_id
            return answer

        # A whole answer begins when it is complete, which takes minutes for some models: the total time bounds it.
        attempt, answer, lease = await self._first_success(send, lambda provider: provider.total_timeout)
        lease.end()
        circuit_breaker.note_success(attempt.upstream)
        return attempt, answer

    async def stream(self) -> OpenStream:
        """A stream whose first content has come. Raises as `answer` does; afterwards the stream itself raises."""

        async def begin(attempt: Attempt, upstream: UpstreamConfig, first_byte: float) -> OpenStream:
            adapter = adapters.for_kind(upstream.provider.kind)
            began = time.monotonic()
            source = await adapter.open(
                upstream, self.operation, self.body(upstream), first_byte=first_byte, within=self.deadline - began
            )
            attempt.status, attempt.upstream_request_id = source.status, source.upstream_request_id
            opened = OpenStream(attempt, source, began)
            try:
                async with asyncio.timeout(first_byte - (time.monotonic() - began)):
                    await opened.read_to_first_content()
            except TimeoutError:
                await source.close()
                raise UpstreamTimeout() from None
            except BaseException:
                await source.close()
                raise
            return opened

        _, opened, lease = await self._first_success(begin, lambda provider: provider.first_token_timeout)
        opened.lease, opened.until = lease, self.deadline
        return opened

    async def _first_success(
        self,
        send: Callable[[Attempt, UpstreamConfig, float], Awaitable[T]],
        first_token: Callable[[ProviderConfig], float],
    ) -> tuple[Attempt, T, Lease]:
        candidates = routing.in_order(self.route)
        if not candidates:
            raise errors.ServiceUnavailable("This model has no upstream that is enabled.", retry_after=60)
        self.deadline = time.monotonic() + max(upstream.provider.total_timeout for upstream in candidates)
        failed_at: list[UpstreamConfig] = []
        refused: set[str] = set()
        last: errors.RedriveError | None = None
        while self.attempts < self.tries:
            lease = await choose(candidates, failed_at, refused)
            if isinstance(lease, errors.RedriveError):
                last = last or lease
                break
            choice = lease.upstream
            again = choice in failed_at
            if again and not self.repeat:
                lease.end()
                break
            budget = _budgets[str(choice)]
            if again:
                lease.end()  # nobody waits with a place that others could use
                if not (await self._may_wait(last) and budget.take()):
                    break
                lease = Lease(choice)
            budget.note_call()
            self.attempts += 1
            is_last = self.attempts == self.tries or len(candidates) == len(failed_at) + 1 or again
            try:
                return await self._try(send, lease, self._first_byte(choice, is_last, first_token))
            except errors.RedriveError as error:
                last = error
                failed_at.append(choice)
                if isinstance(error, UpstreamCredentials):
                    refused.add(str(choice))
                elif not error.retryable:
                    raise
            finally:
                if again:
                    budget.give_back()
        assert last is not None
        if self.attempts and not isinstance(last, UpstreamRateLimited):
            last.should_retry = False  # we have retried; the SDK's own retries would multiply
        raise last

    async def _try(
        self,
        send: Callable[[Attempt, UpstreamConfig, float], Awaitable[T]],
        lease: Lease,
        first_byte: float,
    ) -> tuple[Attempt, T, Lease]:
        upstream = lease.upstream
        context = request_context.current()
        context.reply_headers["redrive-upstream"] = str(upstream)
        context.reply_headers["redrive-attempts"] = str(self.attempts)
        context.log_fields["upstream"] = str(upstream)
        attempt = Attempt(self.attempts, upstream, started=time.monotonic())
        began = time.monotonic()
        try:
            return attempt, await send(attempt, upstream, first_byte), lease
        except errors.RedriveError as error:
            lease.end()
            self._failed(attempt, error, began)
            await judge(upstream, error)
            raise
        except BaseException:
            lease.end()
            attempt.error_code, attempt.reached = "cancelled", True
            attempt.latency = time.monotonic() - began
            self.record(attempt)
            raise
        finally:
            attempt.latency = time.monotonic() - began
            context.upstream_seconds += attempt.latency

    def _failed(self, attempt: Attempt, error: errors.RedriveError, began: float) -> None:
        attempt.latency = time.monotonic() - began
        attempt.error_code = error.code
        attempt.reached = isinstance(error, UpstreamTimeout | StreamInterrupted)
        attempt.status = error.upstream_status or attempt.status
        UPSTREAM_REQUESTS.labels(attempt.upstream.provider.name, error.code).inc()
        log.info("upstream_failed", attempt=attempt.number, code=error.code, kind=type(error).__name__)
        self.record(attempt)

    async def _may_wait(self, last: errors.RedriveError | None) -> bool:
        wait = random.uniform(0, min(BACKOFF_CAP, BACKOFF_BASE * 2 ** (self.attempts - 1)))
        if last is not None and last.retry_after is not None:
            if last.retry_after > LONGEST_WAIT:
                return False
            wait = max(wait, last.retry_after)
        if time.monotonic() + wait >= self.deadline:
            return False
        await asyncio.sleep(wait)
        return True

    def _first_byte(
        self, upstream: UpstreamConfig, is_last: bool, first_token: Callable[[ProviderConfig], float]
    ) -> float:
        seconds = first_token(upstream.provider)
        if self.route.fallback_after is not None and not is_last:
            seconds = min(seconds, self.route.fallback_after)
        return max(0.001, min(seconds, self.deadline - time.monotonic()))
