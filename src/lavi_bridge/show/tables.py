"""Tables for people: Markdown for pages, aligned text for terminals."""

from __future__ import annotations

import re
from collections.abc import Sequence

Cells = Sequence[str]


def markdown(head: Cells, rows: Sequence[Cells], align: str = "l") -> str:
    """A table in Markdown; what cells hold is escaped by the caller.

    Args:
        align: l or r for each column; the last one is for all that follow.
    """
    rule = ["---:" if side == "r" else "---" for side in _sides(align, len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def escaped(text: str) -> str:
    """One line of Markdown that shows a text as it is."""
    text = " ".join(text.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", text)


def aligned(rows: Sequence[Cells], align: str = "l") -> str:
    """Rows of text in columns of one width, two spaces apart; see `markdown` for `align`."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    pads = [str.rjust if side == "r" else str.ljust for side in _sides(align, len(widths))]
    lines = (
        "  ".join(pad(cell, width) for pad, cell, width in zip(pads, cells, widths, strict=True))
        for cells in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _sides(align: str, count: int) -> str:
    return align[:count] + align[-1] * (count - len(align))
