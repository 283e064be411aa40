"""Draws the small charts of the operators' home as SVG on the server: no script, no foreign origin."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

WIDTH, HEIGHT = 480.0, 120.0  # of the drawing; the page scales it
TOP = 6.0


@dataclass(frozen=True, slots=True)
class Series:
    """One named row of values; None is a gap. look: the CSS class that colours it."""

    name: str
    look: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawn chart with its legend. peak: the greatest value, in words."""

    title: str
    svg: SafeString
    legend: list[tuple[str, str]]
    peak: str


@dataclass(frozen=True, slots=True)
class Axis:
    """The time of the first value and the step between two."""

    start: datetime
    step: timedelta

    def label(self, index: int) -> str:
        """The stretch of time of one value."""
        begin = self.start + index * self.step
        return f"{begin:%H:%M}–{begin + self.step:%H:%M} UTC"


def bars(title: str, axis: Axis, series: Sequence[Series], *, unit: str = "{:,.0f}") -> Chart:
    """Stacked bars; the first series stands at the bottom."""
    count = len(series[0].values)
    sums = [sum(one.values[index] or 0 for one in series) for index in range(count)]
    top = _ceiling(max(sums, default=0))
    width = WIDTH / count
    parts: list[tuple[object, ...]] = []
    for index in range(count):
        below = 0.0
        for one in series:
            value = float(one.values[index] or 0)
            if value <= 0:
                continue
            height = max(value / top * (HEIGHT - TOP), 1.0)
            y = HEIGHT - below - height
            parts.append((one.look, f"{index * width + 0.8:.1f}", f"{y:.1f}", f"{width - 1.6:.1f}", f"{height:.1f}"))
            below += height
    drawn = format_html_join("", '<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="1"/>', parts)
    return _chart(title, axis, series, drawn, unit, max(sums, default=0))


def lines(title: str, axis: Axis, series: Sequence[Series], *, unit: str = "{:,.0f}") -> Chart:
    """Lines with gaps where there is no value; a value alone is a dot."""
    values = [value for one in series for value in one.values if value is not None]
    top = _ceiling(max(values, default=0))
    width = WIDTH / len(series[0].values)
    drawn = SafeString("")
    for one in series:
        for stretch in _stretches(one.values):
            points = [
                (f"{(index + 0.5) * width:.1f}", f"{HEIGHT - value / top * (HEIGHT - TOP):.1f}")
                for index, value in stretch
            ]
            if len(points) == 1:
                drawn += format_html('<circle class="{}" cx="{}" cy="{}" r="2"/>', one.look, *points[0])
            else:
                path = " ".join(f"{x},{y}" for x, y in points)
                drawn += format_html('<polyline class="{}" points="{}"/>', one.look, path)
    return _chart(title, axis, series, drawn, unit, max(values, default=0))


def _chart(title: str, axis: Axis, series: Sequence[Series], drawn: SafeString, unit: str, peak: float) -> Chart:
    count = len(series[0].values)
    width = WIDTH / count
    hover = format_html_join(
        "",
        '<rect class="rd-hover" x="{}" y="0" width="{}" height="{}"><title>{}</title></rect>',
        (
            (f"{index * width:.1f}", f"{width:.1f}", f"{HEIGHT:g}", f"{axis.label(index)}\n{_at(series, index, unit)}")
            for index in range(count)
        ),
    )
    label = f"{title}, last 24 hours; peak {unit.format(peak)}"
    svg = format_html(
        '<svg class="rd-chart" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<line class="rd-grid" x1="0" x2="{}" y1="{}" y2="{}"/>'
        '<line class="rd-grid" x1="0" x2="{}" y1="{}" y2="{}"/>{}{}</svg>',
        *(f"{WIDTH:g}", f"{HEIGHT:g}", label),
        *(f"{WIDTH:g}", f"{HEIGHT - 0.5:g}", f"{HEIGHT - 0.5:g}"),
        *(f"{WIDTH:g}", f"{(HEIGHT + TOP) / 2:g}", f"{(HEIGHT + TOP) / 2:g}"),
        drawn,
        hover,
    )
    return Chart(title, svg, [(one.name, one.look) for one in series], unit.format(peak))


def _at(series: Sequence[Series], index: int, unit: str) -> str:
    shown = ((one.name, one.values[index]) for one in series)
    return "\n".join(f"{name}: {'–' if value is None else unit.format(value)}" for name, value in shown)


def _stretches(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    found: list[list[tuple[int, float]]] = [[]]
    for index, value in enumerate(values):
        if value is not None:
            found[-1].append((index, value))
        elif found[-1]:
            found.append([])
    return [stretch for stretch in found if stretch]


def _ceiling(value: float) -> float:
    """The next round number, so that the scale does not jump with every refresh."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(step * unit for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if value <= step * unit * (1 + 1e-9))
