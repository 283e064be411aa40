"""The money side of one request: admitted before it spends, booked per upstream request, settled at its end."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from apps.access import admission
from apps.access.authentication import Caller
from apps.completions import ledger
from apps.completions.models import LedgerEntry
from apps.core import errors
from apps.providers import http, pricing, routing
from apps.providers.call import Body, Call, Record
from apps.providers.contract import Attempt, Operation, RouteConfig, Usage

TOKENS_PER_SECOND = 50  # what a model is taken to have written when nobody was told

_settling: set[asyncio.Task[None]] = set()


@dataclass(frozen=True, slots=True)
class Terms:
    """How a call is made. The defaults are a live call's; a task retries by itself and books when its attempt ends."""

    once_each: bool = False
    checks: str = admission.ALL_CHECKS
    put: Callable[[ledger.Entry], None] | None = None

    def call(self, route: RouteConfig, operation: Operation, body: Body, record: Record) -> Call:
        """The call of a route on these terms."""
        if not self.once_each:
            return Call(route, operation, body, record)
        return Call(route, operation, body, record, tries=max(1, len(route.upstreams)), repeat=False)


LIVE = Terms()


async def find_route(caller: Caller, model: str) -> RouteConfig:
    """The route of a public name that this caller may use. Raises ModelNotFound, PermissionDenied."""
    route = await routing.find(model)
    if not caller.may_use(model):
        raise errors.PermissionDenied(f"This API key may not use the model `{model}`.", param="model")
    return route


@dataclass(slots=True)
class Spending:
    """One admitted request. Every path ends in `end`."""

    purpose: ledger.Purpose
    admission: admission.Admission
    input_tokens: int  # estimated
    output_tokens: int  # at most
    tokens: int = 0
    nusd: int = field(default=0)

    def failed(self, attempt: Attempt) -> None:
        """Book an upstream request that gave nothing; one that was at work is booked with its estimated input, and
        one that the client left with what it may have written since: providers bill it all the same."""
        cancelled = attempt.error_code == "cancelled"
        usage = Usage(self.input_tokens, estimated=True) if attempt.reached else Usage()
        if cancelled:
            usage.output_tokens = min(self.output_tokens, int(attempt.latency * TOKENS_PER_SECOND))
        self.book(attempt, usage, LedgerEntry.Outcome.CANCELLED if cancelled else LedgerEntry.Outcome.FAILED)

    def book(self, attempt: Attempt, usage: Usage, outcome: str = LedgerEntry.Outcome.SUCCEEDED) -> int:
        """Book an upstream request; its cost in nano-USD."""
        cost = self.purpose.book(attempt, usage, outcome)
        self.tokens += usage.input_tokens + usage.output_tokens
        self.nusd += cost
        return cost

    def end(self) -> None:
        """Settle what was reserved, after the answer and whatever becomes of the request."""
        if not self.admission.owed():
            return
        task = asyncio.get_running_loop().create_task(self.admission.settle(tokens=self.tokens, nusd=self.nusd))
        _settling.add(task)
        task.add_done_callback(_settling.discard)


async def begin(
    caller: Caller,
    route: RouteConfig,
    *,
    operation: str,
    input_tokens: int,
    output_tokens: int,
    end_user: str,
    stream: bool = False,
    terms: Terms = LIVE,
) -> Spending:
    """Admit a request that is estimated to use so many tokens. Raises as admission.admit, and ServiceUnavailable
    while the ledger cannot take a row."""
    if terms.put is None:
        ledger.refuse_if_full()
    reserved = pricing.dearest(route).cost(Usage(input_tokens, output_tokens))
    tokens = input_tokens + output_tokens
    admitted = await admission.admit(caller, tokens=tokens, nusd=reserved, end_user=end_user, which=terms.checks)
    purpose = ledger.Purpose(caller, route, operation, end_user, stream, terms.put)
    return Spending(purpose, admitted, input_tokens, output_tokens)


async def shut_down() -> None:
    """When the process stops: end the settlements under way, write the ledger, close the connections to providers."""
    if _settling:
        await asyncio.wait(set(_settling), timeout=2)
    await asyncio.to_thread(ledger.batch().flush, 5.0)
    await http.close()


def refuse_unknown_fields(request: Any, route: RouteConfig) -> None:
    """Raise InvalidRequest with the name of a top-level field that OpenAI does not document."""
    unknown = request.model_extra
    if unknown and not route.forward_unknown:
        name = next(iter(unknown))[:64]
        raise errors.InvalidRequest(f"Unknown field: `{name}`.", param=name)
