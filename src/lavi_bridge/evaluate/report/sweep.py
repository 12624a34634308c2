"""Curves of a score by a strength of a bridge, as inline SVG.

Drawn where entries of one bridge differ in one strength only, and there are enough for a curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lavi_bridge.config import SCALES
from lavi_bridge.evaluate.report.forest import RIGHT, WIDTH, mark, round_numbers, told
from lavi_bridge.evaluate.results import Entry
from lavi_bridge.evaluate.statistics import Estimate
from lavi_bridge.show.html import polyline

FEWEST = 3
"""Strengths of which a curve is drawn."""
HEIGHT, TOP, BOTTOM, LEFT = 190, 24, 42, 44
"""Pixels: of a panel, above and below what is plotted, and beside it for the scores."""


@dataclass(frozen=True)
class Sweep:
    """Entries of one bridge that differ in one strength only."""

    title: str
    """The strength, and of which bridge it is."""
    points: list[tuple[float, str]]
    """(strength, name of the entry) by rising strength."""


def sweeps(entries: Sequence[Entry]) -> list[Sweep]:
    """What can be drawn of these entries."""
    found: dict[tuple[str, str, tuple[float, ...]], dict[float, str]] = {}
    for entry in entries:
        about = entry.about
        if about.get("kind") != "bridge" or "bridge" not in about:
            continue
        loras = about.get("lora", ())
        loaded = "".join(f" with {x['file']} ({x['digest']}) at {x['scale']:g}" for x in loras)
        for scale in SCALES:
            others = tuple(about.get(other, 1.0) for other in SCALES if other != scale)
            same = scale, about["bridge"] + loaded, others
            found.setdefault(same, {}).setdefault(about.get(scale, 1.0), entry.name)
    return [
        Sweep(_title(*same), sorted(points.items()))
        for same, points in found.items()
        if len(points) >= FEWEST
    ]


def _title(scale: str, bridge: str, others: Sequence[float]) -> str:
    names = (other for other in SCALES if other != scale)
    rest = (f", {_told(n)} {x:g}" for n, x in zip(names, others, strict=True) if x != 1)
    return f"{_told(scale)} of bridge {bridge}" + "".join(rest)


def _told(scale: str) -> str:
    return scale.replace("_", " ")


def curve(title: str, sweep: Sweep, found: Mapping[str, Estimate | None]) -> Markup | None:
    """A score by strength, with intervals; None where fewer than two entries have one.

    Args:
        found: estimates by entry.
    """
    known = [(x, name, e) for x, name in sweep.points if (e := found.get(name)) is not None]
    if len(known) < 2:
        return None
    ends = [y for _, _, e in known for y in (e.low, e.value, e.high) if y is not None]
    levels = round_numbers(min(ends), max(ends))
    low, high = min(levels[0], *ends), max(levels[-1], *ends)
    first, last = known[0][0], known[-1][0]

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + 8 + (WIDTH - LEFT - RIGHT - 16) * (x - first) / (last - first)
        up = (HEIGHT - TOP - BOTTOM) * (y - low) / ((high - low) or 1)
        return across, HEIGHT - BOTTOM - up

    lines = [
        Markup(
            '<svg class="forest" viewBox="0 0 {} {}" width="{}" role="img" '
            'aria-label="{} by {}, as in the tables">'
        ).format(WIDTH, HEIGHT, WIDTH, title, sweep.title),
        Markup('<text x="0" y="13" class="title">{}</text>').format(title),
        Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
            (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, sweep.title
        ),
    ]
    for level in levels:
        lines.append(
            Markup(
                '<path class="line" d="M{} {y:.1f}H{}"/><text x="{}" y="{:.1f}" '
                'text-anchor="end">{:.6g}</text>'
            ).format(LEFT, WIDTH - RIGHT, LEFT - 6, at(0, level)[1] + 4, level, y=at(0, level)[1])
        )
    path = polyline([at(x, e.value) for x, _, e in known])
    lines.append(Markup('<polyline class="e0 range" style="fill:none" points="{}"/>').format(path))
    for x, name, e in known:
        places = [at(x, e.value if y is None else y) for y in (e.low, e.value, e.high)]
        lines.append(
            Markup(
                '<g><title>{}</title><path class="e0 range" d="M{x:.1f} {:.1f}V{:.1f}"/>'
                '<g transform="translate({x:.1f} {:.1f})">{}</g>'
                '<text x="{x:.1f}" y="{}" text-anchor="middle">{:g}</text></g>'
            ).format(
                told(name, e),
                places[0][1],
                places[2][1],
                places[1][1],
                mark(0),
                HEIGHT - BOTTOM + 16,
                x,
                x=places[1][0],
            )
        )
    return Markup("\n").join([*lines, Markup("</svg>")])
