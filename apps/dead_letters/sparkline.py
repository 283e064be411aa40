"""Draws how often a group failed in each of the last hours: as a small SVG without script, or in a line of text."""

from collections.abc import Sequence

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

WIDTH, HEIGHT = 96.0, 24.0
BARS = "▁▂▃▄▅▆▇█"


def draw(values: Sequence[int], *, look: str = "rd-spark") -> SafeString:
    """Bars, the oldest first; each tells its count to whoever points at it. Nothing where nothing failed."""
    if not any(values):
        return format_html('<span class="rd-quiet" title="No failure in {} hours">–</span>', len(values))
    top, width = max(values), WIDTH / len(values)
    drawn = format_html_join(
        "",
        '<rect x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>',
        (
            (
                f"{place * width:.1f}", f"{HEIGHT - _height(value, top):.1f}", f"{max(width - 1, 0.5):.1f}",
                f"{_height(value, top):.1f}", f"{value:,}, {_when(len(values) - 1 - place)}",
            )
            for place, value in enumerate(values)
            if value
        ),
    )  # fmt: skip
    label = f"{sum(values):,} in {len(values)} hours, {values[-1]:,} in the last of them"
    return format_html(
        '<svg class="{}" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>',
        look, f"{WIDTH:g}", f"{HEIGHT:g}", label, drawn,
    )  # fmt: skip


def bars(values: Sequence[int]) -> str:
    """A character for each; a point where there is nothing."""
    most = max(values, default=0)
    return "".join(BARS[(len(BARS) - 1) * value // most] if value else "." for value in values)


def _height(value: int, top: int) -> float:
    return max(value / top * HEIGHT, 1.5)


def _when(hours: int) -> str:
    return "this hour" if not hours else f"{hours} h before"
