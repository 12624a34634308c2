"""The conclusions of a table, tested by every measure, and its rows on their way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lavi_bridge.evaluate.report.lines import Line, draw_lines
from lavi_bridge.reproduce.budgets import FREE, PLAIN
from lavi_bridge.reproduce.cells import MARKS, difference_cell, finding_cell, in_paper
from lavi_bridge.reproduce.results import Column, Finding, Results, Verdict
from lavi_bridge.reproduce.rows import Conclusion, Table
from lavi_bridge.show.tables import markdown

COUNTED: dict[Verdict, str] = {
    "holds": "holds",
    "reversed": "the opposite is seen",
    "undecided": "not decided",
    "unseen": "cannot be seen here",
}


def counts(results: Results, findings: Sequence[Finding]) -> str:
    """How many verdicts of each kind there are, by measure: the paper's by recipe, and ours."""
    measures = _measures(results, findings)
    sources: dict[str, list[Finding]] = {}
    for f in sorted(findings, key=lambda f: not f.conclusion.paper):
        recipe = results.rows[f.conclusion.first].recipe
        source = f"the paper's, recipe *{recipe}*" if f.conclusion.paper else "our own questions"
        sources.setdefault(source, []).append(f)
    rows = [
        [source, *(_counted(f.verdict for f in of_source if f.column is c) for c in measures)]
        for source, of_source in sources.items()
    ]
    return markdown(["conclusions", *(c.title for c in measures)], rows)


def _counted(verdicts: Iterable[Verdict]) -> str:
    told = Counter(verdicts)
    return " ".join(f"{mark}\N{NO-BREAK SPACE}{told[v]}" for v, mark in MARKS.items() if told[v])


def marks() -> str:
    """What the marks of verdicts say."""
    return ", ".join(f"{mark} {COUNTED[verdict]}" for verdict, mark in MARKS.items())


def _measures(results: Results, findings: Sequence[Finding]) -> list[Column]:
    return [c for c in results.columns if any(f.column is c for f in findings)]


def claims_table(results: Results, findings: Sequence[Finding]) -> Iterator[str]:
    """A row a claim: how much better its first row is by every measure, over its control."""
    measures = _measures(results, findings)
    claims: dict[Conclusion, dict[Column, Finding]] = {}
    for f in findings:
        claims.setdefault(f.conclusion, {})[f.column] = f
    rows, reasons = [], dict[str, None]()
    for conclusion, by in claims.items():
        cells = [_over_control(results, by[c]) if c in by else "" for c in measures]
        reasons |= {f.reason: None for f in by.values() if f.reason}
        first = next(iter(by.values()))
        rows.append([conclusion.claim, in_paper(results, first), *cells])
    yield (
        "The paper's conclusions, and ours, tested: how much better the first row is "
        f"({marks()}). Below it in italics its control by the same measure: how much better the "
        "first row is than the own encoder with the same pictures, or one image model, or recipe, "
        "with the own encoder than the other.\n"
    )
    yield markdown(["claim", "paper", *(c.title for c in measures)], rows) + "\n"
    if reasons:
        yield f"Cannot be seen: {'; '.join(reasons)}.\n"


def _over_control(results: Results, f: Finding) -> str:
    """A verdict, and below it the difference of its control."""
    if f.verdict == "unseen" or f.conclusion.control is None:
        return finding_cell(f)
    control = results.difference(*f.conclusion.control, f.column)
    return f"{finding_cell(f)}<br>*{difference_cell(control, f.column)}*"


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
