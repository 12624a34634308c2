"""Figures of benchmarks: lines in panels side by side, as one SVG file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lavi_bridge.evaluate.report.forest import round_numbers
from lavi_bridge.show.html import polyline

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, RIGHT = 410, 250, 40, 46, 26, 20
"""Pixels of a panel, and beside, above and below what is plotted."""
ACROSS = 2
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
"""Okabe & Ito's (Color Universal Design, 2008): colour-blind readers tell them apart."""


@dataclass(frozen=True)
class Line:
    """A line and its points (x, y), by rising x."""

    name: str
    points: Sequence[tuple[float, float]]


def draw_lines(panels: Mapping[str, Sequence[Line]]) -> str:
    """Lines by the title of their panel -> an SVG; y from 0 to 1, one scale in all."""
    full = {title: [x for x in lines if x.points] for title, lines in panels.items()}
    full = {title: lines for title, lines in full.items() if lines}
    top = max((y for lines in full.values() for x in lines for _, y in x.points), default=1.0)
    rows = -(-len(full) // ACROSS)
    across = min(ACROSS, max(1, len(full)))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across * WIDTH} {rows * HEIGHT}" '
        'font-family="sans-serif" font-size="11" fill="#1f2328">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for index, (title, lines) in enumerate(full.items()):
        x, y = index % ACROSS * WIDTH, index // ACROSS * HEIGHT
        parts += [f'<g transform="translate({x} {y})">', *_panel(title, lines, top), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(title: str, lines: Sequence[Line], top: float) -> list[str]:
    levels = round_numbers(0.0, top)
    high = max(top, levels[-1])
    last = max(x for line in lines for x, _ in line.points) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / last
        return across, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / high

    parts = [str(Markup('<text x="{}" y="16" font-weight="600">{}</text>').format(LEFT, title))]
    for level in levels:
        y = at(0, level)[1]
        parts.append(f'<path stroke="#d0d7de" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{level:g}</text>')
    for x in round_numbers(0.0, last):
        if x <= last:
            parts.append(
                f'<text x="{at(x, 0)[0]:.1f}" y="{HEIGHT - 9}" text-anchor="middle">{x:g}</text>'
            )
    for index, line in enumerate(lines):
        color = COLORS[index % len(COLORS)]
        places = [at(*point) for point in line.points]
        path = polyline(places)
        parts.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{path}"/>')
        parts += [f'<circle fill="{color}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places]
    legend = "".join(
        Markup('<tspan fill="{}" dx="{}">{}</tspan>').format(
            COLORS[index % len(COLORS)], 12 * bool(index), line.name
        )
        for index, line in enumerate(lines)
    )
    parts.append(f'<text x="{LEFT}" y="34">{legend}</text>')
    return parts
