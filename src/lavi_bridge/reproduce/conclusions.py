"""The conclusions of a table, tested by every measure, and its rows on their way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lavi_bridge.evaluate.report.lines import Line, draw_lines
from lavi_bridge.reproduce.budgets import FREE, PLAIN
from lavi_bridge.reproduce.cells import MARKS, NONE, difference_cell, finding_cell, in_paper
from lavi_bridge.reproduce.results import Column, Finding, Results, Verdict
from lavi_bridge.reproduce.rows import Conclusion, Table
from lavi_bridge.show.tables import markdown

COUNTED: dict[Verdict, str] = {
    "holds": "hold",
    "reversed": "show the opposite",
    "undecided": "are not decided",
    "unseen": "cannot be seen here",
}


def claims_table(results: Results, findings: Sequence[Finding]) -> Iterator[str]:
    """A row a claim: how much better its first row is by every measure, beside its control."""
    measures = [c for c in results.columns if any(f.column is c for f in findings)]
    claims: dict[Conclusion, dict[Column, Finding]] = {}
    for f in findings:
        claims.setdefault(f.conclusion, {})[f.column] = f
    rows, reasons = [], dict[str, None]()
    for conclusion, by in claims.items():
        cells = [finding_cell(by[c]) if c in by else "" for c in measures]
        reasons |= {f.reason: None for f in by.values() if f.reason}
        first = next(iter(by.values()))
        rows.append(
            [conclusion.claim, in_paper(results, first), *cells, _beside(results, conclusion)]
        )
    yield (
        "The paper's conclusions, and ours, tested: how much better the first row is. "
        f"{', '.join(f'{mark} {COUNTED[verdict]}' for verdict, mark in MARKS.items())}. Beside "
        "it, its control: how much better the first row is than the own encoder with the same "
        "pictures, or one image model with its own encoder than the other with its own "
        f"({_controls(results)}).\n"
    )
    yield markdown(["claim", "paper", *(c.title for c in measures), "control"], rows) + "\n"
    if reasons:
        yield f"Cannot be seen: {'; '.join(reasons)}.\n"


def _beside(results: Results, conclusion: Conclusion) -> str:
    """The difference of a conclusion's control, in its first measure."""
    if conclusion.control is None:
        return NONE
    column = _control_column(results, conclusion.look)
    return difference_cell(results.difference(*conclusion.control, column), column)


def _control_column(results: Results, look: str) -> Column:
    return next(c for c in results.columns if c.look == look)


def _controls(results: Results) -> str:
    """By which measures controls are told."""
    titles = {_control_column(results, look).title for look in ("prompts", "pictures")}
    return " or ".join(sorted(titles, key=[c.title for c in results.columns].index))


def curves(results: Results, table: Table, names: Mapping[str, str]) -> str:
    """Exact scores by training step, a panel a suite; "" where no row was followed."""
    panels: dict[str, list[Line]] = {}
    for title, suite in (("plain", PLAIN), ("free", FREE)):
        lines = [
            Line(names[row.slug].removesuffix(" (ours)"), points)
            for row in table.rows
            if row.trained and (points := results.on_its_way(row.slug, suite))
        ]
        if lines:
            panels[f"{title} prompts"] = lines
    return draw_lines(panels) if panels and table.name == "languages" else ""
