"""Lines in panels side by side, as one SVG file, for pages that are plain Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lavi_bridge.evaluate.report.forest import round_numbers
from lavi_bridge.show.html import polyline

WIDTH, PLOTTED, LEFT, TOP, BOTTOM, RIGHT = 410, 178, 40, 32, 26, 20
"""Pixels: a panel's width, the height of what is plotted, and beside, above and below it."""
ROW, LETTER, BESIDE = 14, 6.2, 12
"""Pixels of a row of the legend, of a letter, and between two names."""
ACROSS = 2
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe & Ito's (Color Universal Design, 2008): colour-blind readers tell them apart."""
DASHES = "", "6 3", "2 3"
"""Of the first lines, of those that have the same colours again, and so on."""


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
    across = min(ACROSS, max(1, len(full)))
    legends = {title: _legend(lines) for title, lines in full.items()}
    head = TOP + ROW * max((len(rows) for rows in legends.values()), default=1)
    height = head + PLOTTED + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across * WIDTH} '
        f'{-(-len(full) // ACROSS) * height}" font-family="sans-serif" font-size="11" '
        'fill="#1f2328">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for index, (title, lines) in enumerate(full.items()):
        x, y = index % ACROSS * WIDTH, index // ACROSS * height
        inside = _panel(title, lines, top, head, legends[title])
        parts += [f'<g transform="translate({x} {y})">', *inside, "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend(lines: Sequence[Line]) -> list[list[int]]:
    """The numbers of the lines that are named in each row of the legend."""
    rows: list[list[int]] = [[]]
    left = float(WIDTH - LEFT)
    for index, line in enumerate(lines):
        wide = LETTER * len(line.name) + BESIDE
        if rows[-1] and wide > left:
            rows.append([])
            left = float(WIDTH - LEFT)
        rows[-1].append(index)
        left -= wide
    return rows


def _panel(
    title: str, lines: Sequence[Line], top: float, head: int, legend: Sequence[Sequence[int]]
) -> list[str]:
    levels = round_numbers(0.0, top)
    high = max(top, levels[-1])
    last = max(x for line in lines for x, _ in line.points) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / last
        return across, head + PLOTTED * (1 - y / high)

    parts = [str(Markup('<text x="{}" y="16" font-weight="600">{}</text>').format(LEFT, title))]
    for level in levels:
        y = at(0, level)[1]
        parts.append(f'<path stroke="#d0d7de" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{level:g}</text>')
    for x in round_numbers(0.0, last):
        if x <= last:
            place = at(x, 0)[0], head + PLOTTED + BOTTOM - 9
            parts.append(
                f'<text x="{place[0]:.1f}" y="{place[1]}" text-anchor="middle">{x:g}</text>'
            )
    for index, line in enumerate(lines):
        color, dash = COLORS[index % len(COLORS)], DASHES[index // len(COLORS) % len(DASHES)]
        places = [at(*point) for point in line.points]
        path = polyline(places)
        dashed = f' stroke-dasharray="{dash}"' * bool(dash)
        parts.append(
            f'<polyline fill="none" stroke="{color}" stroke-width="2"{dashed} points="{path}"/>'
        )
        parts += [f'<circle fill="{color}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places]
    for number, row in enumerate(legend):
        names = "".join(
            Markup('<tspan fill="{}" dx="{}">{}{}</tspan>').format(
                COLORS[index % len(COLORS)],
                BESIDE * bool(place),
                lines[index].name,
                " (dashed)" * (index >= len(COLORS)),
            )
            for place, index in enumerate(row)
        )
        parts.append(f'<text x="{LEFT}" y="{34 + ROW * number}">{names}</text>')
    return parts
