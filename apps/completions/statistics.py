"""The numbers of the operators' home: the last 24 hours of the ledger, from one scan of its index on time.

The numbers are kept for a moment, so that pages that refresh themselves cost at most a few per cent of one
Postgres connection, however many are open and however long the ledger is.
"""

import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from apps.completions.models import NUSD

BUCKET = timedelta(minutes=30)
BUCKETS = 48
FRESH = 3.0  # seconds for which numbers are shown again without a look
SHARE = 20  # and this many times as long as the look took

# `cancelled` is the client's doing and counts neither as a success nor as a failure.
_SQL = """
    WITH clock AS (
        SELECT now() AS now,
               date_bin('30 minutes', now(), '2000-01-01Z') - interval '23 hours 30 minutes' AS start,
               date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS today
    ), entries AS (
        SELECT date_bin('30 minutes', created_at, '2000-01-01Z') AS bucket, provider, upstream_model, created_at,
               outcome IN ('failed', 'interrupted') AS is_failure, outcome = 'succeeded' AS is_success,
               input_tokens, output_tokens, cost_nusd, latency_ms
        FROM completions_ledgerentry
        WHERE created_at >= (SELECT start FROM clock)
    )
    SELECT grouping(bucket), grouping(provider), bucket, provider, upstream_model,
           count(*), count(*) FILTER (WHERE is_failure),
           coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0), coalesce(sum(cost_nusd), 0),
           coalesce(sum(cost_nusd) FILTER (WHERE created_at >= (SELECT today FROM clock)), 0),
           percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY latency_ms) FILTER (WHERE is_success),
           max(created_at) FILTER (WHERE is_failure), (SELECT start FROM clock), (SELECT now FROM clock)
    FROM entries
    GROUP BY GROUPING SETS ((bucket), (provider, upstream_model), ())
"""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Upstream requests of one stretch of time or of one place. Latencies: milliseconds of those that succeeded."""

    requests: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    p50: int | None = None
    p95: int | None = None

    @property
    def tokens(self) -> int:
        """Input and output."""
        return self.input_tokens + self.output_tokens

    @property
    def error_rate(self) -> float:
        """Failed requests as a share of all, 0 to 1."""
        return self.failed / self.requests if self.requests else 0.0


@dataclass(frozen=True, slots=True)
class Day:
    """The last 24 hours. buckets: half an hour each, oldest first; places: by (provider name, upstream model)."""

    start: datetime
    taken_at: datetime
    total: Numbers
    usd_today: float
    last_failure: datetime | None
    buckets: tuple[Numbers, ...]
    places: dict[tuple[str, str], Numbers] = field(default_factory=dict)


_kept: tuple[Day, float] | None = None
_lock = threading.Lock()


def day() -> Day:
    """The numbers now, or those of a moment ago."""
    global _kept
    with _lock:  # of several pages one reads, the others wait for what it found
        if _kept is None or time.monotonic() >= _kept[1]:
            began = time.monotonic()
            found = read()
            now = time.monotonic()
            _kept = found, now + max(FRESH, SHARE * (now - began))
        return _kept[0]


def forget() -> None:
    """Read anew at the next look."""
    global _kept
    _kept = None


def read() -> Day:
    """The numbers from Postgres."""
    with connection.cursor() as cursor:
        cursor.execute(_SQL)
        rows = cursor.fetchall()
    total, today, last_failure = Numbers(), 0.0, None
    start, now = rows[0][-2:]
    buckets: dict[datetime, Numbers] = {}
    places: dict[tuple[str, str], Numbers] = {}
    for no_bucket, no_provider, bucket, provider, model, *values, usd_today, percentiles, failed_at, _, _ in rows:
        numbers = _numbers(values, percentiles)
        if not no_bucket:
            buckets[bucket] = numbers
        elif not no_provider:
            places[provider, model] = numbers
        else:
            total, today, last_failure = numbers, int(usd_today) / NUSD, failed_at
    series = tuple(buckets.get(start + index * BUCKET, Numbers()) for index in range(BUCKETS))
    return Day(start, now, total, today, last_failure, series, places)


def _numbers(values: list[Any], percentiles: list[int | None] | None) -> Numbers:
    requests, failed, input_tokens, output_tokens, nusd = map(int, values)
    p50, p95 = percentiles or (None, None)
    return Numbers(requests, failed, input_tokens, output_tokens, nusd / NUSD, p50, p95)
