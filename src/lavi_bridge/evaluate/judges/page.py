"""How a judge did, for people: one page that holds all it shows, Markdown, and JSON.

The same answers give the same bytes: nothing here knows the time or where it runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lavi_bridge.evaluate.judges.calibration import BINS, Bin, Measures
from lavi_bridge.evaluate.judges.diagram import reliability
from lavi_bridge.evaluate.judges.items import DRAWN, PAIRS, shown
from lavi_bridge.evaluate.judges.results import Mistake, Result, Section
from lavi_bridge.evaluate.report.forest import COLORS, forest, mark
from lavi_bridge.evaluate.report.tables import NONE, Cell, Row, Table, digits, markdown_table
from lavi_bridge.evaluate.statistics import Estimate
from lavi_bridge.files.atomic import write_text
from lavi_bridge.show.html import data_url, render
from lavi_bridge.show.tables import aligned, escaped, markdown
from lavi_bridge.version import __version__

RECORD, TEXT, PAGE = "judge.json", "judge.md", "judge.html"
THUMBNAIL = 160
"""Pixels of a picture on the page."""
COLUMNS = ("accuracy", "AUC", "right picture first", "calibration error", "Brier score", "answers")
CHANCE = ("chance", (".5", ".5", ".5", "", ".25", ""))
SOURCES = {PAIRS: "the world's pairs", DRAWN: "pictures by image models"}

ABOUT = (
    "Pictures of the shapes world come in pairs that differ in one fact: another colour, two "
    "colours swapped, one figure more. A text that is true of one is asked about both, so half of "
    "the right answers are Yes, whichever picture or text one looks at: who says always the same "
    "is at chance."
)
ABOUT_MEASURES = (
    "Accuracy: more than ½ is read as true. AUC: how often something true scores more than "
    "something false; right picture first: the same of the two pictures of one text. Calibration "
    "error: how far what is said lies from what is true, by tenths; in small what a calibrated "
    "judge would have by luck. Brier score: mean squared error. Beside each is its 95 % interval, "
    "by a bootstrap over pairs within their category; Wilson's where all are right, or none."
)


def write(result: Result, out: Path) -> None:
    """Write `judge.json`, `judge.md` and `judge.html` into a folder, each whole or not at all."""
    text = json.dumps(record(result), indent=1, ensure_ascii=False, default=str) + "\n"
    write_text(out / RECORD, text)
    write_text(out / TEXT, "\n".join(_markdown(result)) + "\n")
    write_text(out / PAGE, _page(result))


def console(result: Result) -> str:
    """The tables as text for a terminal, without intervals but that of accuracy."""
    lines = [f"{result.name} on the shapes world (chance: ½ of accuracy and AUC, ¼ of Brier)"]
    for table in [headline(result), *(_by(s, "category") for s in result.sections)]:
        if table is None:
            continue
        rows = [[table.head, *table.columns]]
        for row in table.rows:
            first = row.cells[0]
            rows.append([row.label, " ".join([first.text, *(f"({n})" for n in first.notes)])])
            rows[-1] += [cell.text for cell in row.cells[1:]]
        lines += ["", *([table.title] if table.title else []), aligned(rows, "lr")]
    return "\n".join(lines)


# ---- tables


def headline(result: Result) -> Table:
    """Each metric's wording, beside chance."""
    rows = [Row(_named(s), _cells(s.overall, _places([s.overall]))) for s in result.sections]
    label, cells = CHANCE
    rows.append(Row(label, [Cell(text or NONE) for text in cells], published=True))
    return Table("", list(COLUMNS), rows, head="asked as")


def _named(section: Section) -> str:
    return section.title + ("" if section.source == PAIRS else f", {SOURCES[section.source]}")


def tables(section: Section) -> list[Table]:
    """A section's measures by category, text and change, and accuracy by both of the former."""
    found = [table for by in section.parts if (table := _by(section, by))]
    kinds = _kinds(section)
    if len(kinds) > 1 and len(section.crossed) > 1:
        places = _places([m for row in section.crossed.values() for m in row.values()])
        rows = [
            Row(name, [_cell(row[k].accuracy, places) if k in row else Cell() for k in kinds])
            for name, row in section.crossed.items()
        ]
        found.append(Table("Accuracy by category and text", kinds, rows, head="category"))
    return found


def _by(section: Section, by: str) -> Table | None:
    found = section.parts.get(by)
    if found is None:
        return None
    places = _places(list(found.values()))
    rows = [Row(part, _cells(one, places)) for part, one in found.items()]
    title = f"{_named(section)}, by {'what differs' if by == 'change' else by}"
    return Table(title, list(COLUMNS), rows, head=by)


def bins_table(section: Section) -> Table:
    """What the reliability diagram shows."""

    def row(one: Bin) -> Row:
        cells = [Cell(f"{one.said:.3f}"), _cell(one.true, 3), Cell(f"{one.count:,}")]
        return Row(f"{one.low:g} to {one.high:g}", cells)

    rows = [row(one) for one in section.overall.bins]
    return Table("", ["says on average", "true", "answers"], rows, head="says")


def _places(found: list[Measures]) -> int:
    """Decimals, 2 or 3, as for scores; an accuracy that cannot vary says nothing of them."""
    told = [{"accuracy": m.accuracy, "auc": m.auc, "brier": m.brier} for m in found]
    return min(3, digits(told))


def _cells(m: Measures, places: int) -> list[Cell]:
    ece = _cell(m.ece, places)
    return [
        _cell(m.accuracy, places),
        _cell(m.auc, places),
        _cell(m.ranked, places),
        Cell(ece.text, (*ece.notes, f"by luck {m.lucky:.{places}f}")),
        _cell(m.brier, places),
        Cell(f"{m.questions:,}", (f"{m.pairs:,} {'pair' if m.pairs == 1 else 'pairs'}",)),
    ]


def _cell(e: Estimate | None, places: int) -> Cell:
    if e is None:
        return Cell()
    notes = () if e.low is None else (f"{e.low:.{places}f}–{e.high:.{places}f}",)
    return Cell(f"{e.value:.{places}f}", notes)


# ---- JSON


def record(result: Result) -> dict[str, Any]:
    """All that was found, with what it depends on."""
    sections: dict[str, dict[str, Any]] = {}
    for section in result.sections:
        sections.setdefault(section.metric, {})[section.source] = {
            "overall": asdict(section.overall),
            **{
                by: {part: asdict(one) for part, one in found.items()}
                for by, found in section.parts.items()
            },
            "category and text": {
                category: {kind: asdict(one.accuracy) for kind, one in row.items()}
                for category, row in section.crossed.items()
            },
            "mistakes": [
                {"id": m.item.id, "asked": shown(m.item), "true": m.item.true, "score": m.score}
                for m in section.mistakes
            ],
        }
    return {
        "version": __version__,
        "name": result.name,
        "judge": result.judge,
        "settings": result.settings,
        "bins": BINS,
        "metrics": {
            name: {"provenance": provenance, "title": _title(result, name), **sections[name]}
            for name, provenance in result.metrics.items()
        },
    }


def _title(result: Result, metric: str) -> str:
    return next(s.title for s in result.sections if s.metric == metric)


# ---- Markdown


def _markdown(result: Result) -> Iterator[str]:
    yield f"# {escaped(result.name)} as a judge\n\n{ABOUT}\n\n{ABOUT_MEASURES}\n"
    yield from markdown_table(headline(result))
    for section in result.sections:
        yield f"## {_named(section)}\n\n{_asks(result, section)}\n"
        for table in tables(section):
            yield from markdown_table(table)
        yield "**What it says, and what is true**\n"
        yield from markdown_table(bins_table(section))
        if section.mistakes:
            yield "**Its most confident mistakes**\n"
            rows = [
                [escaped(shown(m.item)), _said(m), escaped(m.item.id)] for m in section.mistakes
            ]
            yield markdown(["asked", "", "answer"], rows) + "\n"
    for title, text in _provenance(result):
        yield f"<details><summary>{title}</summary>\n\n~~~json\n{text}\n~~~\n\n</details>\n"


def _said(mistake: Mistake) -> str:
    return f"it says {mistake.score:.3g}, and it is {'true' if mistake.item.true else 'false'}"


def _asks(result: Result, section: Section) -> str:
    told = result.metrics[section.metric]
    asks = told["question"].replace("{}", "…")
    return f"Asked: “{asks}” ({told['mode']}; its answer read as {told['reading']})."


def _provenance(result: Result) -> list[tuple[str, str]]:
    told: Mapping[str, Any] = {
        "The judge": result.judge,
        "What it was asked": result.settings | {"metrics": result.metrics},
    }
    return [(k, json.dumps(v, indent=2, ensure_ascii=False, default=str)) for k, v in told.items()]


# ---- the page


def _page(result: Result) -> str:
    return render(
        "lavi_bridge.evaluate.judges",
        "judge.html",
        name=result.name,
        about=ABOUT,
        about_measures=ABOUT_MEASURES,
        headline=headline(result),
        parts=[
            {
                "title": _named(section),
                "asks": _asks(result, section),
                "tables": tables(section),
                "bins": bins_table(section),
                "reliability": reliability("What it says, and what is true", section.overall.bins),
                "forest": _forest(section),
                "kinds": _kinds(section),
                "mistakes": [(m, shown(m.item), _said(m), _inlined(m)) for m in section.mistakes],
            }
            for section in result.sections
        ],
        provenance=_provenance(result),
        mark=mark,
        colors=COLORS,
        version=__version__,
    )


def _kinds(section: Section) -> list[str]:
    return list(dict.fromkeys(kind for row in section.crossed.values() for kind in row))


def _forest(section: Section) -> Any:
    found: dict[str, dict[str, Estimate | None]] = {
        category: {kind: one.accuracy for kind, one in row.items()}
        for category, row in section.crossed.items()
    }
    return forest("Accuracy; chance is 0.5", found, _kinds(section))


def _inlined(mistake: Mistake) -> str:
    picture = mistake.case.open()[mistake.item.picture].copy()
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return data_url(picture)
