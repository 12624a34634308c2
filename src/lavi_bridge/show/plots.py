"""Curves to be read, on axes and over each other: an SVG in the colours of the page around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from lavi_bridge.show.html import polyline

SIZE = 360, 200
"""Width and height in units of the SVG, which is as wide as its place."""
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 8, 32
POINTS = 400
"""Points of a drawn line at most; each is the mean of those it stands for."""
DASHES = "", "6 3", "2 2", "8 3 2 3"

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """One curve of a plot."""

    name: str
    steps: Values
    values: Values
    colour: int = 0
    """0 or 1: the page's first or second colour (CSS classes `lb-ink-0`, `lb-ink-1`)."""
    dash: int = 0
    """Which of DASHES."""


def draw_plot(
    title: str,
    lines: Sequence[Line],
    *,
    across: str = "step",
    log: bool = False,
    over: float = 0,
    lowest: bool = False,
) -> Markup:
    """A plot with its axes and, below it, what each line is and where it stands.

    Args:
        across: what the horizontal axis shows.
        log: values on a logarithmic scale, where all are above zero.
        over: share of a line's points (0 to 1) whose mean each smoothed point is; the line as it
            is stays faintly behind it.
        lowest: also tell where each line is lowest.
    """
    lines = [line for line in lines if len(line.values)]
    log = log and all(float(line.values.min()) > 0 for line in lines)
    shown = [(line, *thinned(line.steps, smoothed(line.values, over))) for line in lines]
    behind = [(line, *thinned(line.steps, line.values)) for line in lines] if over else []
    both = [(steps, values) for _, steps, values in (*shown, *behind)]
    if not both:
        return Markup("")
    x = Axis.of([steps for steps, _ in both], LEFT, SIZE[0] - RIGHT)
    y = Axis.of([values for _, values in both], SIZE[1] - BOTTOM, TOP, log=log, room=0.04)
    name = f"{title} over {across}s" + (", logarithmic" if log else "")
    parts = [
        Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(*SIZE, name),
        *(_level(y.place(tick), _short(tick)) for tick in y.ticks()),
        *(_upright(x.place(tick), _steps(tick)) for tick in x.ticks()),
        Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(
            SIZE[0] - RIGHT, SIZE[1] - 3, across
        ),
        *(_drawn(line, x(steps), y(values), faint=True) for line, steps, values in behind),
        *(_drawn(line, x(steps), y(values)) for line, steps, values in shown),
        Markup("</svg>"),
    ]
    head = Markup("<figcaption><b>{}</b>{}</figcaption>").format(title, " (log)" if log else "")
    told = Markup("").join(_legend(line, lowest=lowest) for line in lines)
    return Markup('<figure class="lb-plot">{}{}<ul>{}</ul></figure>').format(
        head, Markup("").join(parts), told
    )


def smoothed(values: Values, over: float) -> Values:
    """Each value -> the mean of those around it, so many of all (0 to 1); fewer at the ends."""
    half = round(len(values) * over) // 2
    if half < 1:
        return values
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    first, last = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    mean: Values = (sums[last] - sums[first]) / (last - first)
    # a difference of sums may fall a rounding error outside of what it is the mean of
    return mean.clip(values.min(), values.max())


def thinned(steps: Values, values: Values) -> tuple[Values, Values]:
    """At most POINTS points, each the mean of those that it stands for."""
    if len(values) <= POINTS:
        return steps, values
    starts = np.unique(np.linspace(0, len(values), POINTS, endpoint=False).astype(int))
    counts = np.diff([*starts, len(values)])
    means = [np.add.reduceat(column, starts) / counts for column in (steps, values)]
    return means[0], means[1]


@dataclass(frozen=True)
class Axis:
    """Values -> places between two ends, in units of the SVG."""

    low: float
    high: float
    begin: float
    end: float
    log: bool

    @classmethod
    def of(
        cls,
        found: Sequence[Values],
        begin: float,
        end: float,
        *,
        log: bool = False,
        room: float = 0,
    ) -> Axis:
        """One that all values fit on, with a share of it left free at both ends."""
        low, high = min(float(v.min()) for v in found), max(float(v.max()) for v in found)
        if log:
            low, high = math.log10(low), math.log10(high)
        margin = (high - low) * room or (abs(low) * 0.1 or 1.0) * (low == high)
        return cls(low - margin, high + margin, begin, end, log)

    def __call__(self, values: Values) -> Values:
        at = np.log10(values) if self.log else values
        places: Values = self.begin + (at - self.low) * ((self.end - self.begin) / self.span)
        return places

    @property
    def span(self) -> float:
        """From one end to the other, in decades of a logarithmic scale."""
        return self.high - self.low

    def place(self, value: float) -> float:
        """Where one value is."""
        return float(self(np.array([value]))[0])

    def ticks(self) -> list[float]:
        """Round values to mark, at most six of them."""
        if not self.log:
            return _round(self.low, self.high)
        ends = max(self.low, -307), min(self.high, 308)  # what a float can be
        decades = range(math.ceil(ends[0]), math.floor(ends[1]) + 1)
        if len(decades) >= 2:
            return [10.0**n for n in decades][:: -(-len(decades) // 6)]
        return [tick for tick in _round(10 ** ends[0], 10 ** ends[1]) if tick > 0]


def _round(low: float, high: float) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten, three to six of them."""
    rough = (high - low) / 4 or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((m * power for m in (1, 2, 2.5, 5) if m * power >= rough), 10 * power)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [n * step for n in range(first, last + 1)]


def _level(y: float, text: str) -> Markup:
    return Markup(
        '<path class="lb-rule" d="M{} {y:.1f}H{}"/>'
        '<text x="{}" y="{:.1f}" text-anchor="end">{}</text>'
    ).format(LEFT, SIZE[0] - RIGHT, LEFT - 4, y + 3.5, text, y=y)


def _upright(x: float, text: str) -> Markup:
    return Markup(
        '<path class="lb-rule" d="M{x:.1f} {}V{}"/>'
        '<text x="{x:.1f}" y="{}" text-anchor="middle">{}</text>'
    ).format(TOP, SIZE[1] - BOTTOM, SIZE[1] - BOTTOM + 12, text, x=x)


def _drawn(line: Line, x: Values, y: Values, *, faint: bool = False) -> Markup:
    kind = f"lb-ink-{line.colour}" + " lb-faint" * faint
    if len(x) == 1:
        return Markup('<circle class="lb-dot {}" cx="{:.1f}" cy="{:.1f}" r="2.5"/>').format(
            kind, x[0], y[0]
        )
    points = polyline(list(zip(x.tolist(), y.tolist(), strict=True)))
    return Markup('<polyline class="lb-curve {}" points="{}" stroke-dasharray="{}"/>').format(
        kind, points, DASHES[line.dash % len(DASHES)]
    )


def _legend(line: Line, *, lowest: bool) -> Markup:
    """`run: 0.0213 at 5,000`, and perhaps `lowest 0.0201 at 4,800`."""
    at = int(line.values.argmin())
    mark = Markup(
        '<svg viewBox="0 0 22 8" aria-hidden="true"><path class="lb-curve lb-ink-{}" d="M0 4H22" '
        'stroke-dasharray="{}"/></svg>'
    ).format(line.colour, DASHES[line.dash % len(DASHES)])
    least = Markup("<small>lowest {:.4g} at {:,.0f}</small>").format(
        line.values[at], line.steps[at]
    )
    return Markup("<li>{}<span>{}</span> <b>{:.4g}</b> at {:,.0f}{}</li>").format(
        mark, line.name, line.values[-1], line.steps[-1], least if lowest else ""
    )


def _short(value: float) -> str:
    return f"{value:.4g}"


def _steps(value: float) -> str:
    """`1500` -> `1.5k`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def as_values(numbers: Any) -> Values:
    """Numbers of an array as their copy, which does not keep it from growing."""
    return np.array(numbers, dtype=np.float64)
