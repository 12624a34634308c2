"""Forest plots: estimates with their intervals side by side, a panel a metric, as inline SVG.

Entries differ by colour and by the shape of their mark. The colours are those of Okabe & Ito (Color
Universal Design, 2008), which colour-blind readers tell apart; the page's style has them as e0, e1…
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from lavi_bridge.evaluate.statistics import Estimate

WIDTH, LEFT, RIGHT = 328, 104, 12
"""Pixels: of a panel, which a phone shows unscaled, of its labels, and of its right margin."""
LETTERS = 18
"""That have room in `LEFT` pixels."""
STEP, GAP, TOP, BOTTOM = 12, 9, 24, 22
"""Pixels: between entries, more between parts, above the first and below the last."""
COLORS = 7
MARKS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0",
    "M-3.5-3.5h7v7h-7z",
    "M0-4.8L4.8 0L0 4.8L-4.8 0z",
    "M0-4.6L4.4 3.6H-4.4z",
    "M0 4.6L4.4-3.6H-4.4z",
)
"""A disc, a square, a diamond, a triangle on its base and one on its tip."""

STYLE = (
    ".forest{color:#1f2328;font-family:sans-serif}text{font-size:11px;fill:currentColor}"
    ".title{font-size:13px;font-weight:600}.line{stroke:#d0d7de}.e0{fill:#0072b2}"
    ".range{fill:none;stroke-width:2;stroke:#0072b2}"
    "@media(prefers-color-scheme:dark){.forest{color:#e6edf3}.line{stroke:#3d444d}"
    ".e0{fill:#56b4e9}.range{stroke:#56b4e9}}"
)
"""The style of a plot that is a file of its own."""


def mark(index: int) -> Markup:
    """The mark of an entry, around the origin."""
    shape = MARKS[index % len(MARKS)]
    return Markup('<path class="e{}" d="{}"/>').format(index % COLORS, shape)


def forest(
    title: str,
    found: Mapping[str, Mapping[str, Estimate | None]],
    entries: Sequence[str],
    *,
    left: int = LEFT,
) -> Markup:
    """Estimates by part and entry -> an SVG.

    Args:
        left: pixels for the names of the parts, which are cut to fit.
    """
    width = WIDTH - LEFT + left
    known = [e for part in found.values() for e in part.values() if e]
    ends = [x for e in known for x in (e.low, e.value, e.high) if x is not None]
    ticks = round_numbers(min(ends), max(ends))
    low, high = min(ticks[0], *ends), max(ticks[-1], *ends)
    height = TOP + len(found) * (len(entries) * STEP + GAP) + BOTTOM

    def across(value: float) -> str:
        return f"{left + (width - left - RIGHT) * (value - low) / ((high - low) or 1):.1f}"

    lines = [
        Markup(
            '<svg class="forest" viewBox="0 0 {} {}" width="{}" role="img" '
            'aria-label="{}: estimates with intervals, as in the tables">'
        ).format(width, height, width, title),
        Markup('<text x="0" y="13" class="title">{}</text>').format(title),
    ]
    for tick in ticks:
        lines.append(
            Markup(
                '<path class="line" d="M{0} {1}V{2}"/><text x="{0}" y="{3}" '
                'text-anchor="middle">{4}</text>'
            ).format(across(tick), TOP, height - BOTTOM, height - 6, f"{tick:.6g}")
        )
    top = TOP + GAP / 2
    for part, estimates in found.items():
        middle = top + len(entries) * STEP / 2 + 4
        lines.append(
            Markup('<text x="0" y="{}">{}</text>').format(
                f"{middle:.1f}", part[: left * LETTERS // LEFT]
            )
        )
        for index, name in enumerate(entries):
            if e := estimates.get(name):
                ends = [e.value if x is None else x for x in (e.low, e.value, e.high)]
                places = [across(x) for x in ends]
                lines.append(_entry(index, name, e, places, top + (index + 0.5) * STEP))
        top += len(entries) * STEP + GAP
    return Markup("\n").join([*lines, Markup("</svg>")])


def standalone(title: str, found: Mapping[str, Mapping[str, Estimate | None]]) -> str:
    """A forest plot of one estimate a part as a file of its own, for light and dark pages."""
    letters = max(LETTERS, *map(len, found))
    drawn = str(forest(title, found, [""], left=(letters + 2) * LEFT // LETTERS))  # none is cut
    head, _, rest = drawn.partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{STYLE}</style>{rest}\n'


def _entry(index: int, name: str, e: Estimate, places: Sequence[str], y: float) -> Markup:
    """Mark and interval, and what a pointer is told of them."""
    low, middle, high = places
    return Markup(
        '<g><title>{}</title><path class="e{} range" d="M{} {y}H{}"/>'
        '<g transform="translate({} {y})">{}</g></g>'
    ).format(told(name, e), index % COLORS, low, high, middle, mark(index), y=f"{y:.1f}")


def told(name: str, e: Estimate) -> str:
    """An estimate in words."""
    words = f"{name}: {e.value:.4g}" if name else f"{e.value:.4g}"
    return words + (f" ({e.low:.4g} to {e.high:.4g})" if e.low is not None else "")


def round_numbers(low: float, high: float) -> list[float]:
    """Up to six round numbers between two."""
    span = (high - low) or abs(low) or 1.0
    step = 10.0 ** math.floor(math.log10(span))
    step = next(s for s in (step / 5, step / 2, step, 2 * step) if span / s <= 5)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(n * step, 10) for n in range(first, last + 1)] or [low]
