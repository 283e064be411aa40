"""Prometheus metrics of the project: base units, bounded labels (never keys, users or client-made names)."""

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
LEDGER_WAITING = Gauge("redrive_ledger_waiting_rows", "Ledger rows that wait for Postgres")
