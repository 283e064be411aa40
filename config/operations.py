"""What the operators' home shows: numbers and charts of the last day, breakers, and the next step of a new gateway."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Value
from django.http import HttpRequest

from apps.access.models import ApiKey
from apps.completions import statistics
from apps.providers import breaker_board
from apps.providers.breaker_board import Breaker
from apps.providers.models import ModelRoute, Provider
from config import work_strip
from config.charts import Axis, Chart, Series, bars, lines

MOST_BREAKERS = 50


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the header. look: rd-good, rd-bad or nothing."""

    name: str
    value: str
    note: str = ""
    look: str = ""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one upstream did in the last day, in words."""

    requests: str = "0"
    failed_share: str = "–"
    p95: str = "–"


@dataclass(frozen=True, slots=True)
class Row:
    """A breaker with its upstream's traffic, as the table's template wants it."""

    breaker: Breaker
    traffic: Traffic

    def __getattr__(self, name: str) -> Any:
        return getattr(self.breaker, name)


def context(request: HttpRequest) -> dict[str, Any]:
    """The template's variables; only what this user may see."""
    user = request.user
    shows_numbers = user.has_perm("completions.view_ledgerentry")
    shows_breakers = user.has_perm("providers.view_provider")
    day = statistics.day() if shows_numbers else None
    breakers = breaker_board.load() if shows_breakers else []
    found: dict[str, Any] = {
        "day": day,
        "figures": figures(day, breakers if shows_breakers else None) if day else [],
        "charts": charts(day) if day and day.total.requests else [],
        "breakers": rows(breakers[:MOST_BREAKERS], day),
        "more_breakers": len(breakers) - MOST_BREAKERS,
        "shows_breakers": shows_breakers,
        "redis_away": any(one.state == "unknown" for one in breakers),
        "trouble": breaker_board.trouble(breakers),
        "work": work_strip.context(request),
        **work_strip.broken(request),
    }
    if day and not day.total.requests:
        found["steps"] = first_steps(request)
    return found


def figures(day: statistics.Day, breakers: list[Breaker] | None) -> list[Figure]:
    """The header's numbers."""
    total = day.total
    found = [
        Figure("Requests to providers", f"{total.requests:,}", "24 h"),
        Figure("Failed", _share(total), f"{total.failed:,} of them", "rd-bad" if total.error_rate > 0.05 else ""),
        Figure("Spend today", _usd(day.usd_today), f"{_usd(total.usd)} in 24 h"),
        Figure("Tokens", _short(total.tokens), f"{_short(total.input_tokens)} in, {_short(total.output_tokens)} out"),
        Figure("Latency p95", _ms(total.p95), f"p50 {_ms(total.p50)}"),
    ]
    if breakers is not None:
        open_ones = breaker_board.trouble(breakers)
        look = "rd-bad" if open_ones else "rd-good"
        unknown = any(one.state == "unknown" for one in breakers)
        value = "unknown" if unknown else str(open_ones)
        found.append(Figure("Open breakers", value, f"of {len(breakers)}", "" if unknown else look))
    return found


def charts(day: statistics.Day) -> list[Chart]:
    """Requests, latency, tokens and spend, by half hours."""
    axis = Axis(day.start, statistics.BUCKET)
    each = day.buckets
    return [
        bars(
            "Requests",
            axis,
            [
                Series("failed", "rd-fill-bad", [one.failed for one in each]),
                Series("others", "rd-fill-good", [one.requests - one.failed for one in each]),
            ],
        ),
        lines(
            "Latency",
            axis,
            [
                Series("p95", "rd-line-second", [one.p95 for one in each]),
                Series("p50", "rd-line-first", [one.p50 for one in each]),
            ],
            unit="{:,.0f} ms",
        ),
        bars(
            "Tokens",
            axis,
            [
                Series("input", "rd-fill-first", [one.input_tokens for one in each]),
                Series("output", "rd-fill-second", [one.output_tokens for one in each]),
            ],
        ),
        bars("Spend", axis, [Series("USD", "rd-fill-third", [one.usd for one in each])], unit="${:,.4f}"),
    ]


def rows(breakers: list[Breaker], day: statistics.Day | None) -> list[Row]:
    """Breakers with the traffic of their upstreams."""
    places = day.places if day else {}
    found = []
    for one in breakers:
        numbers = places.get((one.provider.name, one.model))
        traffic = Traffic(f"{numbers.requests:,}", _share(numbers), _ms(numbers.p95)) if numbers else Traffic()
        found.append(Row(one, traffic))
    return found


def first_steps(request: HttpRequest) -> dict[str, Any]:
    """What a new gateway still needs, and the first request to paste into a shell."""
    routes = ModelRoute.objects.filter(enabled=True, upstreams__provider__enabled=True).order_by("created_at")
    # One query: the page refreshes itself.
    found = dict(
        routes.values_list(Value("route"), "public_name")[:1].union(
            Provider.objects.filter(enabled=True).values_list(Value("provider"), "name")[:1],
            ApiKey.objects.filter(disabled_at__isnull=True).values_list(Value("key"), "name")[:1],
            all=True,
        )
    )
    return {
        "has_provider": "provider" in found,
        "route": found.get("route"),
        "has_key": "key" in found,
        "api_url": request.build_absolute_uri("/v1"),
    }


def _share(numbers: statistics.Numbers) -> str:
    percent = numbers.error_rate * 100
    return f"{percent:.1f} %" if 0 < percent < 10 else f"{percent:.0f} %"


def _ms(value: int | None) -> str:
    if value is None:
        return "–"
    return f"{value:,} ms" if value < 10_000 else f"{timedelta(milliseconds=value).total_seconds():,.1f} s"


def _usd(value: float) -> str:
    return f"${value:,.2f}" if value >= 1 or value == 0 else f"${value:.4f}"


def _short(value: float) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f}{letter}"
    return f"{value:,.0f}"
