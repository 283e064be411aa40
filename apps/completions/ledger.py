"""Writes the ledger: one row per upstream request, by group commit, never in the client's way.

A row is in Postgres within 100 ms; a graceful stop loses none. With Postgres away REDRIVE_LEDGER_BACKLOG rows wait
in the process, then requests that spend are refused (503), because what cannot be booked must not be spent.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from psycopg import sql

from apps.access.authentication import Caller
from apps.completions.models import LedgerEntry, StoredBody
from apps.core import errors, ids, json_codec, metrics, request_context
from apps.core.database import Batch, copy_rows
from apps.providers import pricing
from apps.providers.contract import Attempt, RouteConfig, Usage

LINGER = 0.08  # seconds to gather rows for one commit


class Entry(NamedTuple):
    """The columns of LedgerEntry."""

    id: UUID
    created_at: datetime
    request_id: str
    project_id: UUID
    api_key_id: UUID
    end_user: str
    operation: str
    model: str
    provider: str
    upstream_model: str
    upstream_request_id: str
    attempt: int
    stream: bool
    outcome: str
    status: int | None
    error_code: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_nusd: int
    estimated: bool
    latency_ms: int
    ttft_ms: int | None
    elapsed_ms: int
    task_id: UUID | None = None
    task_attempt: int | None = None


class Body(NamedTuple):
    """The columns of StoredBody."""

    id: UUID
    request_id: str
    project_id: UUID
    created_at: datetime
    expires_at: datetime
    request: str
    response: str


@dataclass(frozen=True, slots=True)
class Purpose:
    """Whose request it is and what for: what all ledger rows of one request share."""

    caller: Caller
    route: RouteConfig
    operation: str
    end_user: str
    stream: bool
    put: "Callable[[Entry], None] | None" = None
    """Takes the rows of a task's attempt, which writes them when it ends; None: they are queued here."""

    def book(self, attempt: Attempt, usage: Usage, outcome: str = LedgerEntry.Outcome.SUCCEEDED) -> int:
        """Queue the row of one upstream request; its cost in nano-USD."""
        price = pricing.price(self.route, attempt.upstream.model)
        cost = price.cost(usage)
        context = request_context.current()
        entry = Entry(
            id=ids.new_uuid(),
            created_at=datetime.now(UTC),
            request_id=context.request_id,
            project_id=self.caller.project_id,
            api_key_id=self.caller.key_id,
            end_user=self.end_user,
            operation=self.operation,
            model=self.route.public_name,
            provider=attempt.upstream.provider.name,
            upstream_model=attempt.upstream.model,
            upstream_request_id=_printable(attempt.upstream_request_id, 200),
            attempt=attempt.number,
            stream=self.stream,
            outcome=outcome,
            status=attempt.status,
            error_code=attempt.error_code,
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
            cost_nusd=cost,
            estimated=usage.estimated or (cost > 0 and not price.known),
            latency_ms=round(attempt.latency * 1000),
            ttft_ms=None if attempt.first_token is None else round(attempt.first_token * 1000),
            elapsed_ms=round(context.elapsed_ms()),
        )
        context.booked = entry
        (self.put or batch().append)(entry)
        return cost

    def store(self, request: Any, response: Any) -> None:
        """Keep the texts if the project wants them kept."""
        if not self.caller.store_bodies:
            return
        now = datetime.now(UTC)
        expires = now + timedelta(days=self.caller.body_retention_days)
        request_id = request_context.current().request_id
        batch().append(
            Body(
                ids.new_uuid(),
                request_id,
                self.caller.project_id,
                now,
                expires,
                json_codec.ascii_dumps(request),
                json_codec.ascii_dumps(response),
            )
        )


@functools.cache
def batch() -> "Batch[Entry | Body, None]":
    """The process's writer of the ledger."""
    made: Batch[Entry | Body, None] = Batch(
        write, name="ledger", linger=LINGER, backlog=settings.REDRIVE.ledger_backlog
    )
    metrics.LEDGER_WAITING.set_function(lambda: len(made))
    return made


def refuse_if_full() -> None:
    """Raise ServiceUnavailable while as many rows wait for Postgres as may."""
    if batch().is_full():
        raise errors.ServiceUnavailable("The ledger cannot be written right now.", retry_after=5)


def write(items: "Sequence[Entry | Body]") -> Sequence[None]:
    """COPY the rows into their tables in one transaction."""
    entries = [item for item in items if isinstance(item, Entry)]
    with transaction.atomic():
        copy_rows(LedgerEntry._meta.db_table, Entry._fields, entries)
        copy_rows(StoredBody._meta.db_table, Body._fields, [item for item in items if isinstance(item, Body)])
    for entry in entries:
        _count(entry)
    return [None] * len(items)


def write_once(entries: Sequence[Entry]) -> None:
    """Insert rows that may be there already, in the caller's transaction."""
    if not entries:
        return
    names = sql.SQL(", ").join(map(sql.Identifier, Entry._fields))
    values = sql.SQL(", ").join([sql.Placeholder()] * len(Entry._fields))
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT DO NOTHING")
    with connection.cursor() as cursor:
        cursor.executemany(statement.format(sql.Identifier(LedgerEntry._meta.db_table), names, values), entries)


_SPEND = """
SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM'), coalesce(sum(cost_nusd), 0)
FROM completions_ledgerentry
WHERE {} = %s AND created_at >= date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
"""


def spend_of_month(scope: str, scope_id: UUID) -> tuple[str, int]:
    """The UTC month by Postgres' clock (YYYY-MM) and the nano-USD that a project or a key spent in it."""
    column = {"project": "project_id", "key": "api_key_id"}[scope]
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL(_SPEND).format(sql.Identifier(column)), [scope_id])
        month, spent = cursor.fetchone()
    return month, int(spent)


def _count(entry: Entry) -> None:
    meters = metrics.of_provider(entry.provider)
    meters.input_tokens.inc(entry.input_tokens)
    meters.output_tokens.inc(entry.output_tokens)
    meters.spend.inc(entry.cost_nusd / 1e9)
    if entry.outcome == LedgerEntry.Outcome.SUCCEEDED:
        meters.succeeded.inc()
        meters.seconds.observe(entry.latency_ms / 1000)
        if entry.ttft_ms is not None:
            meters.first_token_seconds.observe(entry.ttft_ms / 1000)


def _printable(text: str, most: int) -> str:
    return text[:most] if text.isprintable() else "".join(char for char in text if char.isprintable())[:most]
