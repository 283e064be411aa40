"""Estimates what nobody saw the end of: a call whose process died has cost its input all the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from apps.completions.ledger import Entry
from apps.completions.models import LedgerEntry
from apps.core import ids
from apps.providers import pricing, routing
from apps.providers.contract import RouteConfig, Usage


@dataclass(frozen=True, slots=True)
class LostCall:
    """A call of a task's attempt that was lost with its worker. input_tokens: estimated; seconds: since its begin."""

    project_id: UUID
    api_key_id: UUID
    request_id: str
    end_user: str
    operation: str
    model: str
    input_tokens: int
    seconds: float
    task_id: UUID
    task_attempt: int


def estimate(calls: Sequence[LostCall]) -> list[Entry]:
    """The row of each: interrupted, estimated, at its route's first upstream."""
    routes = routing.load() if calls else {}
    return [_entry(call, routes.get(call.model)) for call in calls]


def _entry(call: LostCall, route: RouteConfig | None) -> Entry:
    upstream = min(route.upstreams, key=lambda one: one.position, default=None) if route else None
    price = pricing.price(route, upstream.model) if route and upstream else pricing.UNKNOWN
    milliseconds = min(round(max(0.0, call.seconds) * 1000), 2**31 - 1)
    return Entry(
        id=ids.new_uuid(),
        created_at=datetime.now(UTC),
        request_id=call.request_id,
        project_id=call.project_id,
        api_key_id=call.api_key_id,
        end_user=call.end_user,
        operation=call.operation,
        model=call.model,
        provider=upstream.provider.name if upstream else "",
        upstream_model=upstream.model if upstream else "",
        upstream_request_id="",
        attempt=1,
        stream=False,
        outcome=LedgerEntry.Outcome.INTERRUPTED,
        status=None,
        error_code="worker_lost",
        input_tokens=call.input_tokens,
        cached_tokens=0,
        output_tokens=0,
        cost_nusd=price.cost(Usage(call.input_tokens)),
        estimated=True,
        latency_ms=milliseconds,
        ttft_ms=None,
        elapsed_ms=milliseconds,
        task_id=call.task_id,
        task_attempt=call.task_attempt,
    )
