"""Curves as one SVG picture, small panels side by side: looked at, not read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from lavi_bridge.show.html import polyline

PANEL = 240, 130
"""Width and height of a panel in pixels."""
ACROSS = 3
POINTS = 400
"""Points of a curve at most; longer ones are averaged."""

Curve = Sequence[tuple[int, float]]
"""(step, value) by rising step."""


def draw_curves(curves: Mapping[str, Curve]) -> str:
    """Curves by title -> an SVG; values on a logarithmic scale where all are above zero."""
    width, height = PANEL
    across = min(ACROSS, max(1, len(curves)))
    rows = -(-len(curves) // across)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across * width} {rows * height}" '
        f'font-family="sans-serif" font-size="10">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for index, (title, points) in enumerate(curves.items()):
        x, y = index % across * width, index // across * height
        parts += [f'<g transform="translate({x} {y})">', *_panel(title, points), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def read_curve(path: Path, key: str) -> list[tuple[int, float]]:
    """What a file of JSON lines says of a figure, by step."""
    records = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [(r["step"], r[key]) for r in records if "step" in r and r.get(key) is not None]


def _panel(title: str, points: Curve) -> list[str]:
    if len(points) < 2:
        return [f'<text x="8" y="16">{title}: too short for a curve</text>']
    width, height = PANEL
    left, right, top, bottom = 8, width - 8, 24, height - 20
    first, end, last = points[0][1], points[-1][1], points[-1][0]
    points = _thinned(points)
    values = [value for _, value in points]
    if min(values) > 0:
        values = [math.log(value) for value in values]
    low, span = min(values), (max(values) - min(values)) or 1.0
    across, up = (right - left) / max(1, last), (bottom - top) / span
    places = polyline(
        [
            (left + across * step, bottom - up * (value - low))
            for (step, _), value in zip(points, values, strict=True)
        ]
    )
    return [
        f'<text x="{left}" y="14" font-weight="bold">{title}</text>',
        f'<polyline points="{places}" fill="none" stroke="#2563eb" stroke-width="1.5"/>',
        f'<text x="{left}" y="{height - 6}">{first:.3g} → {end:.3g}</text>',
        f'<text x="{right}" y="{height - 6}" text-anchor="end">{last:,} steps</text>',
    ]


def _thinned(points: Curve) -> Curve:
    size = -(-len(points) // POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]
