"""Reliability diagrams: what a judge says beside what is true, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from lavi_bridge.evaluate.judges.calibration import Bin
from lavi_bridge.evaluate.report.forest import WIDTH

LEFT, TOP, SIDE, BARS, HEIGHT = 44, 26, 236, 44, 350
"""Pixels: beside and above the square, its side, the height of the bars below it, and of all."""
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def reliability(title: str, bins: Sequence[Bin]) -> Markup:
    """The share that is true by what is said, with its interval, beside the line of a calibrated
    judge; below, how many answers there are."""

    def x(value: float) -> str:
        return f"{LEFT + SIDE * value:.1f}"

    def y(value: float) -> str:
        return f"{TOP + SIDE * (1 - value):.1f}"

    base = TOP + SIDE + 18 + BARS + 4
    lines = [
        Markup(
            '<svg class="forest" viewBox="0 0 {0} {1}" width="{0}" role="img" '
            'aria-label="{2}: reliability diagram, as in the table of bins">'
        ).format(WIDTH, HEIGHT, title),
        Markup('<text x="0" y="13" class="title">{}</text>').format(title),
    ]
    for tick in TICKS:
        lines.append(
            Markup(
                '<path class="line" d="M{0} {1}V{2}M{1x} {3}H{4}"/>'
                '<text x="{0}" y="{5}" text-anchor="middle">{6}</text>'
                '<text x="{7}" y="{8}" text-anchor="end">{6}</text>'
            )
            .replace("{1x}", x(0))
            .format(
                x(tick), y(1), y(0), y(tick), x(1), TOP + SIDE + 14, f"{tick:g}", LEFT - 6,
                f"{float(y(tick)) + 4:.1f}",
            )
        )  # fmt: skip
    lines.append(
        Markup('<path class="calibrated" d="M{} {}L{} {}"/>').format(x(0), y(0), x(1), y(1))
    )
    most = max((one.count for one in bins), default=1)
    for one in bins:
        low, high = one.true.low, one.true.high
        spread = "" if low is None or high is None else f"M{x(one.said)} {y(low)}V{y(high)}"
        height = max(1.0, BARS * one.count / most)
        said = (
            f"said {one.said:.2f}, true {one.true.value:.2f}"
            + ("" if low is None or high is None else f" ({low:.2f} to {high:.2f})")
            + f": {one.count:,} answers from {one.low:g} to {one.high:g}"
        )
        lines.append(
            Markup(
                '<g><title>{}</title><path class="e0 range" d="{}"/>'
                '<circle class="e0" cx="{}" cy="{}" r="4.5"/>'
                '<rect class="e0 soft" x="{}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/></g>'
            ).format(
                said, spread, x(one.said), y(one.true.value),
                x(one.low + 0.01), base - height, SIDE * (one.high - one.low - 0.02), height,
            )
        )  # fmt: skip
    lines.append(
        Markup('<path class="line" d="M{} {}H{}"/>').format(x(0), base, x(1))
        + Markup('<text x="{}" y="{}" text-anchor="middle">what it says</text>').format(
            x(0.5), base + 16
        )
        + Markup(
            '<text x="12" y="{0}" text-anchor="middle" transform="rotate(-90 12 {0})">'
            "what is true</text>"
        ).format(y(0.5))
        + Markup('<text x="{}" y="{}" text-anchor="end">{:,}</text>').format(
            LEFT - 6, base - BARS + 8, most
        )
    )
    return Markup("\n").join([*lines, Markup("</svg>")])
