"""From rounds to tables, ratios and bars: medians over the rounds, ratios made within each round."""

from dataclasses import dataclass
from statistics import median
from typing import Any

Rounds = list[dict[str, dict[str, Any]]]  # per round: server name -> figures of that round
GATEWAY = "redrive"


def figures(plain: dict[str, Any], streams: dict[str, Any]) -> dict[str, float | None]:
    """One server's round in the units of the table: us of CPU, ms, MB, per second."""

    def per(total: float, number: int) -> float | None:
        return total / number * 1e6 if number and total else None

    def ms(seconds: float | None) -> float | None:
        return None if seconds is None else seconds * 1e3

    return {
        "cpu_us_request": per(plain["cpu_seconds"], plain["requests"]),
        "requests_s": plain["requests"] / plain["seconds"],
        "p50_ms": ms(plain["p50"]),
        "p99_ms": ms(plain["p99"]),
        "busy": plain["cpu_seconds"] / plain["seconds"] or None,
        "cpu_us_chunk": per(streams["cpu_seconds"], streams["chunks"]),
        "chunks_s": streams["chunks"] / streams["seconds"],
        "stream_busy": streams["cpu_seconds"] / streams["seconds"] or None,
        "ttft_ms": ms(streams["ttft_p50"]),
        "ttft_p99_ms": ms(streams["ttft_p99"]),
        "rss_mb": max(plain["rss_bytes"], streams["rss_bytes"]) / 1e6 or None,
    }


def add_ttft_added(round_: dict[str, dict[str, Any]]) -> None:
    """TTFT minus that of the upstream without a relay, in the same round."""
    direct = round_["direct"]["ttft_ms"]
    for values in round_.values():
        known = direct is not None and values["ttft_ms"] is not None
        values["ttft_added_ms"] = values["ttft_ms"] - direct if known else None


def middle(rounds: Rounds, server: str, name: str) -> float | None:
    values = [round_[server][name] for round_ in rounds if round_[server][name] is not None]
    return median(values) if values else None


def ratio(rounds: Rounds, server: str, other: str, name: str) -> float | None:
    """`server`'s figure divided by `other`'s: the median of the rounds' own ratios."""
    if not rounds or server not in rounds[0] or other not in rounds[0]:
        return None
    pairs = [(round_[server][name], round_[other][name]) for round_ in rounds]
    ratios = [mine / theirs for mine, theirs in pairs if mine and theirs]
    return median(ratios) if ratios else None


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """An aligned table that reads the same in a terminal and in a page."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        return "| " + " | ".join([cells[0].ljust(widths[0]), *padded[1:]]) + " |"

    rule = "|" + "|".join("-" * (width + 1) + (":" if i else "-") for i, width in enumerate(widths)) + "|"
    return "\n".join([line(head), rule, *map(line, rows)])


def number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


PLAIN = [  # heading, figure, digits
    ("CPU us/request", "cpu_us_request", 0),
    ("requests/s", "requests_s", 0),
    ("p50 ms", "p50_ms", 1),
    ("p99 ms", "p99_ms", 1),
    ("CPU busy", "busy", 2),
    ("RSS MB", "rss_mb", 0),
]
STREAMS = [
    ("CPU us/chunk", "cpu_us_chunk", 1),
    ("chunks/s", "chunks_s", 0),
    ("TTFT p50 ms", "ttft_ms", 2),
    ("TTFT p50 added ms", "ttft_added_ms", 2),
    ("TTFT p99 ms", "ttft_p99_ms", 1),
    ("CPU busy", "stream_busy", 2),
]


def table(title: str, columns: list[tuple[str, str, int]], rounds: Rounds, duties: dict[str, str]) -> str:
    rows = []
    for server in rounds[0]:
        values = [number(middle(rounds, server, name), digits) for _, name, digits in columns]
        rows.append([server, duties[server], *values])
    return markdown([title, "duties", *(heading for heading, _, _ in columns)], rows)


def ratio_table(rounds: Rounds, title: str, name: str) -> str:
    """How many times the CPU of the column's server each row's server needs."""
    servers = [server for server in rounds[0] if middle(rounds, server, name) is not None]
    rows = [[row, *(number(ratio(rounds, row, column, name), 3) for column in servers)] for row in servers]
    return markdown([title, *(f"x {server}" for server in servers)], rows)


@dataclass(frozen=True)
class Bar:
    """At most `limit`, of the gateway's figure itself or, with `other`, of its ratio to the other's."""

    when: str
    words: str
    name: str
    limit: float
    other: str | None = None

    def value(self, rounds: Rounds) -> float | None:
        if self.other:
            return ratio(rounds, GATEWAY, self.other, self.name)
        return middle(rounds, GATEWAY, self.name) if rounds and GATEWAY in rounds[0] else None


BARS = [
    Bar("First", "CPU per request <= 1/20 of LiteLLM's", "cpu_us_request", 1 / 20, "litellm"),
    Bar("First", "CPU per request <= 1.6 x a bare FastAPI relay's", "cpu_us_request", 1.6, "fastapi"),
    Bar("First", "SSE CPU per chunk <= 1/10 of LiteLLM's", "cpu_us_chunk", 1 / 10, "litellm"),
    Bar("First", "TTFT p50 added <= 5 ms", "ttft_added_ms", 5.0),
    Bar("Then", "CPU per request <= 1/50 of LiteLLM's", "cpu_us_request", 1 / 50, "litellm"),
    Bar("Then", "CPU per request <= a bare aiohttp relay's", "cpu_us_request", 1.0, "aiohttp"),
    Bar("Then", "SSE CPU per chunk <= 1/15 of LiteLLM's", "cpu_us_chunk", 1 / 15, "litellm"),
    Bar("Then", "SSE CPU per chunk <= 1/0.95 of a bare aiohttp relay's", "cpu_us_chunk", 1 / 0.95, "aiohttp"),
    Bar("Then", "TTFT p50 added <= 2 ms", "ttft_added_ms", 2.0),
]


def bar_table(rounds: Rounds) -> str:
    rows = []
    for bar in BARS:
        value = bar.value(rounds)
        if value is None:
            seen, verdict = "-", "not measured"
        else:
            seen = f"{value:.3f}" + (f" (1/{1 / value:.1f})" if bar.other and 0 < value < 0.5 else "")
            verdict = "met" if value <= bar.limit else "MISSED"
        rows.append([f"{bar.when}: {bar.words}", seen, verdict])
    return markdown(["bar", "measured", "verdict"], rows)


def whole(rounds: Rounds, duties: dict[str, str]) -> str:
    """Everything the bench has to say, as Markdown."""
    parts = [
        table("plain answers", PLAIN, rounds, duties),
        table("SSE", STREAMS, rounds, duties),
        ratio_table(rounds, "CPU per request", "cpu_us_request"),
        ratio_table(rounds, "CPU per chunk", "cpu_us_chunk"),
        bar_table(rounds),
    ]
    return "\n\n".join(parts)
