"""The loss of every stage of a zoo build as one SVG picture, small panels side by side."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

PANEL = 220, 120
"""Width and height of a panel in pixels."""
ACROSS = 3


def draw_curves(logs: dict[str, list[dict[str, Any]]]) -> str:
    """Logs by title, as `log.jsonl` files hold them -> an SVG; losses on a logarithmic scale."""
    width, height = PANEL
    rows = -(-len(logs) // ACROSS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {ACROSS * width} {rows * height}" '
        f'font-family="sans-serif" font-size="10">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for index, (title, lines) in enumerate(logs.items()):
        x, y = index % ACROSS * width, index // ACROSS * height
        parts += [f'<g transform="translate({x} {y})">', *_panel(title, lines), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def read_logs(work: Path) -> dict[str, list[dict[str, Any]]]:
    """The logs of a build's `work` folder, or of the copies in docs, by title."""
    return {
        str(path.parent.relative_to(work)).replace("/", " "): [
            json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()
        ]
        for path in sorted(work.glob("*/*/log.jsonl"))
    }


def _panel(title: str, lines: list[dict[str, Any]]) -> list[str]:
    points = [(line["step"], line["loss"]) for line in lines if line.get("loss")]
    if len(points) < 2:
        return [f'<text x="8" y="16">{title}: too short for a curve</text>']
    width, height = PANEL
    left, right, top, bottom = 8, width - 8, 24, height - 20
    logs = [math.log(loss) for _, loss in points]
    low, high, last = min(logs), max(logs), points[-1][0]
    span = (high - low) or 1.0
    across, up = (right - left) / last, (bottom - top) / span
    places = " ".join(
        f"{left + across * step:.1f},{bottom - up * (value - low):.1f}"
        for (step, _), value in zip(points, logs, strict=True)
    )
    return [
        f'<text x="{left}" y="14" font-weight="bold">{title}</text>',
        f'<polyline points="{places}" fill="none" stroke="#2563eb" stroke-width="1.5"/>',
        f'<text x="{left}" y="{height - 6}">loss {points[0][1]:.3g} → {points[-1][1]:.3g}</text>',
        f'<text x="{right}" y="{height - 6}" text-anchor="end">{last:,} steps</text>',
    ]
