"""Curves in small panels side by side, as an SVG or as pixels: looked at, not read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lavi_bridge.show.html import polyline

PANEL = 240, 130
"""Width and height of a panel in pixels."""
ACROSS = 3
BLUE = "#2563eb"
POINTS = 400
"""Points of a curve at most; longer ones are averaged."""

Curve = Sequence[tuple[int, float]]
"""(step, value) by rising step."""


def draw_curves(curves: Mapping[str, Curve]) -> str:
    """Curves by title -> an SVG; values on a logarithmic scale where all are above zero."""
    (width, height), corners = _sheet(len(curves))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="10">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for (x, y), (title, points) in zip(corners, curves.items(), strict=True):
        parts += [f'<g transform="translate({x} {y})">', *_panel(title, points), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def paint_curves(curves: Mapping[str, Curve], *, scale: int = 3) -> Image.Image:
    """The same as pixels, `scale` for each of the SVG: for pages that show no SVG."""
    size, corners = _sheet(len(curves))
    sheet = Image.new("RGB", (size[0] * scale, size[1] * scale), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(10 * scale)
    for (x, y), (title, points) in zip(corners, curves.items(), strict=True):
        lines, line = _drawn(title, points)
        for text, left, base, right in lines:
            place = (x + left) * scale, (y + base) * scale
            text = text.replace("→", "to")  # Pillow's own font has no arrow
            draw.text(place, text, "black", font, anchor="rs" if right else "ls")
        places = [((x + left) * scale, (y + top) * scale) for left, top in line]
        if places:
            draw.line(places, BLUE, round(1.5 * scale), joint="curve")
    return sheet


def _sheet(count: int) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """The size of so many panels together, and the corner of each."""
    across = min(ACROSS, max(1, count))
    rows = -(-count // across)
    corners = [(i % across * PANEL[0], i // across * PANEL[1]) for i in range(count)]
    return (across * PANEL[0], rows * PANEL[1]), corners


def read_curve(path: Path, key: str) -> list[tuple[int, float]]:
    """What a file of JSON lines says of a figure, by step."""
    records = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [(r["step"], r[key]) for r in records if "step" in r and r.get(key) is not None]


def _panel(title: str, points: Curve) -> list[str]:
    texts, line = _drawn(title, points)
    heads = [' font-weight="bold"' if line else "", "", ""]
    written = [
        f'<text x="{x}" y="{y}"{head}{end}>{text}</text>'
        for (text, x, y, right), head in zip(texts, heads, strict=False)
        for end in [' text-anchor="end"' if right else ""]
    ]
    curve = f'<polyline points="{polyline(line)}" fill="none" stroke="{BLUE}" stroke-width="1.5"/>'
    return [written[0], *([curve] if line else []), *written[1:]]


Text = tuple[str, int, int, bool]
"""What is written, where its line begins, and whether it ends there instead."""


def _drawn(title: str, points: Curve) -> tuple[list[Text], list[tuple[float, float]]]:
    """The texts of a panel, its title first, and its curve, in pixels of the panel."""
    if len(points) < 2:
        return [(f"{title}: too short for a curve", 8, 16, False)], []
    width, height = PANEL
    left, right, top, bottom = 8, width - 8, 24, height - 20
    first, end, last = points[0][1], points[-1][1], points[-1][0]
    points = _thinned(points)
    values = [value for _, value in points]
    if min(values) > 0:
        values = [math.log(value) for value in values]
    low, span = min(values), (max(values) - min(values)) or 1.0
    across, up = (right - left) / max(1, last), (bottom - top) / span
    places = [
        (left + across * step, bottom - up * (value - low))
        for (step, _), value in zip(points, values, strict=True)
    ]
    texts = [
        (title, left, 14, False),
        (f"{first:.3g} → {end:.3g}", left, height - 6, False),
        (f"{last:,} steps", right, height - 6, True),
    ]
    return texts, places


def _thinned(points: Curve) -> Curve:
    size = -(-len(points) // POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]
