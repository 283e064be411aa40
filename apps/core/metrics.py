"""Prometheus metrics of the project: base units, bounded labels (never keys, users or client-made names)."""

import functools
from typing import NamedTuple

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("redrive_requests", "API replies", ["operation", "status"])
REQUEST_SECONDS = Histogram(
    "redrive_request_seconds",
    "API replies, from the request's start to its last byte",
    ["operation"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
UPSTREAM_REQUESTS = Counter("redrive_upstream_requests", "Requests to providers", ["provider", "outcome"])
UPSTREAM_SECONDS = Histogram(
    "redrive_upstream_seconds",
    "Requests to providers that succeeded",
    ["provider"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
FIRST_TOKEN_SECONDS = Histogram(
    "redrive_first_token_seconds",
    "Time to the first content of a stream",
    ["provider"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
UPSTREAM_IN_FLIGHT = Gauge("redrive_upstream_in_flight", "Requests to providers that run", ["provider"])
TOKENS = Counter("redrive_tokens", "Tokens of providers' answers", ["provider", "direction"])
SPEND = Counter("redrive_spend_usd", "US dollars spent on providers", ["provider"])
SOCKETS = Gauge("redrive_sockets", "Websockets that are open")
SOCKET_CLOSES = Counter("redrive_socket_closes", "Websockets that ended, by close code", ["code"])
SOCKET_STREAMS = Counter("redrive_socket_streams", "Streams on websockets that ended", ["operation", "outcome"])
LEDGER_WAITING = Gauge("redrive_ledger_waiting_rows", "Ledger rows that wait for Postgres")


class ProviderMeters(NamedTuple):
    """One provider's children: looking one up by its labels costs more than counting."""

    succeeded: Counter
    seconds: Histogram
    first_token_seconds: Histogram
    input_tokens: Counter
    output_tokens: Counter
    spend: Counter


@functools.cache
def of_provider(name: str) -> ProviderMeters:
    """The meters of a provider (their number is that of the providers that operators made)."""
    return ProviderMeters(
        succeeded=UPSTREAM_REQUESTS.labels(name, "succeeded"),
        seconds=UPSTREAM_SECONDS.labels(name),
        first_token_seconds=FIRST_TOKEN_SECONDS.labels(name),
        input_tokens=TOKENS.labels(name, "input"),
        output_tokens=TOKENS.labels(name, "output"),
        spend=SPEND.labels(name),
    )


@functools.cache
def of_reply(operation: str, status: int) -> tuple[Counter, Histogram]:
    """The counter and the histogram of an operation's replies."""
    return REQUESTS.labels(operation, str(status)), REQUEST_SECONDS.labels(operation)
