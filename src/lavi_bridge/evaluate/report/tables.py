"""An evaluation summed up, and the tables that say so, the paper's among them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lavi_bridge.evaluate.results import Entry, Evaluation, MetricInfo, SuiteResults
from lavi_bridge.evaluate.statistics import Estimate, Paired, Scores, estimate, paired
from lavi_bridge.recipes import ABLATIONS, recipe
from lavi_bridge.show.tables import aligned, escaped, markdown

OVERALL = "overall"
NONE = "–"
"""In a table, where a number does not apply."""
CLIPPED = 200
"""Characters of a prompt in Markdown."""


# Summing up ---------------------------------------------------------------------------------------


@dataclass
class Summary:
    """One suite in numbers: by metric, by part (OVERALL or a category), by entry."""

    suite: SuiteResults
    estimates: dict[str, dict[str, dict[str, Estimate | None]]] = field(default_factory=dict)
    paired: dict[str, dict[str, dict[str, Paired | None]]] = field(default_factory=dict)
    """Every entry but the first, less the first."""


def summarize(evaluation: Evaluation) -> list[Summary]:
    """Estimates and paired tests of every suite; None where an entry has no score."""
    return [_summary(evaluation, suite) for suite in evaluation.suites]


def parts(suite: SuiteResults, metric: str) -> dict[str, list[int]]:
    """The prompts that a metric applies to: OVERALL, then by category; one category alone."""
    scored = [
        place
        for place in range(len(suite.prompts))
        if any(_known(judged.scores.get(metric), place) for judged in suite.judged.values())
    ]
    found: dict[str, list[int]] = {}
    for place in scored:
        found.setdefault(suite.prompts[place].category, []).append(place)
    if len(found) > 1:
        return {OVERALL: scored} | {part or "(no category)": found[part] for part in found}
    return {part or OVERALL: places for part, places in found.items()}


def _known(scores: Scores | None, place: int) -> bool:
    return scores is not None and any(score is not None for score in scores[place])


def _summary(evaluation: Evaluation, suite: SuiteResults) -> Summary:
    summary = Summary(suite)
    for metric in evaluation.metrics:
        for part, places in parts(suite, metric).items():
            strata = [suite.prompts[place].category for place in places]
            taken = {
                entry.name: [scores[place] for place in places]
                for entry in evaluation.entries
                if (scores := _scores(suite, entry, metric)) is not None
                and any(_known(scores, place) for place in places)
            }
            first, *others = (entry.name for entry in evaluation.entries)
            summary.estimates.setdefault(metric, {})[part] = {
                name: estimate(taken[name], strata) if name in taken else None
                for name in (first, *others)
            }
            if others:
                summary.paired.setdefault(metric, {})[part] = {
                    name: _paired(taken.get(name), taken.get(first), strata) for name in others
                }
    return summary


def _scores(suite: SuiteResults, entry: Entry, metric: str) -> Scores | None:
    judged = suite.judged.get(entry.name)
    return judged.scores.get(metric) if judged else None


def _paired(a: Scores | None, b: Scores | None, strata: Sequence[str]) -> Paired | None:
    if a is None or b is None or not any(map(_both, a, b)):
        return None
    return paired(a, b, strata)


def _both(a: Sequence[float | None], b: Sequence[float | None]) -> bool:
    return any(x is not None and y is not None for x, y in zip(a, b, strict=False))


# Tables -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A number as it is shown, and what stands beside it in small."""

    text: str = NONE
    notes: tuple[str, ...] = ()
    best: bool = False


@dataclass(frozen=True)
class Row:
    """What a row is about, and its cells."""

    label: str
    cells: list[Cell]
    published: bool = False
    """Whether the numbers are the paper's."""


@dataclass(frozen=True)
class Table:
    """A table, ready to be written in any format."""

    title: str
    columns: list[str]
    rows: list[Row]
    head: str = "entry"
    """What stands above the rows' labels."""


def clipped(text: str) -> str:
    """One line of Markdown that shows the text as it is, cut where it is long."""
    text = " ".join(text.split())
    return escaped(text if len(text) <= CLIPPED else text[:CLIPPED] + "…")


def markdown_table(table: Table) -> Iterator[str]:
    """A table in Markdown, below its title."""
    if table.title:
        yield f"**{clipped(table.title)}**\n"
    rows = [[clipped(row.label), *map(_markdown_cell, row.cells)] for row in table.rows]
    yield markdown([clipped(table.head), *map(clipped, table.columns)], rows, "lr") + "\n"


def _markdown_cell(cell: Cell) -> str:
    value = f"**{cell.text}**" if cell.best else cell.text
    return f"{value} ({'; '.join(cell.notes)})" if cell.notes else value


def score_tables(evaluation: Evaluation, summary: Summary) -> list[Table]:
    """Entries by parts, a table a metric; metrics with one part each share a table."""
    found = {}
    for metric, by_part in summary.estimates.items():
        info, places = evaluation.metrics[metric], digits(by_part.values())
        found[metric] = {part: _cells(row, info, places) for part, row in by_part.items()}
    return _tables(evaluation, found, evaluation.entries)


def paired_tables(evaluation: Evaluation, summary: Summary) -> list[Table]:
    """Every entry but the first against it, laid out as `score_tables`."""
    found = {}
    for metric, by_part in summary.paired.items():
        info, places = evaluation.metrics[metric], digits(summary.estimates[metric].values())
        found[metric] = {
            part: {name: _difference(test, info, places) for name, test in row.items()}
            for part, row in by_part.items()
        }
    return _tables(evaluation, found, evaluation.entries[1:])


def console(evaluation: Evaluation) -> str:
    """The tables of scores and distances as text for a terminal, without intervals."""
    lines: list[str] = []
    for summary in summarize(evaluation):
        for table in [
            *score_tables(evaluation, summary),
            *distance_tables(evaluation, summary.suite),
        ]:
            rows = [["", *table.columns]]
            rows += [[row.label, *(cell.text for cell in row.cells)] for row in table.rows]
            lines += ["", f"{summary.suite.title}: {table.title}".removesuffix(": ")]
            lines.append(aligned(rows, "lr"))
        lines += [f"{title}: {line}" for title, line in trusts(evaluation, summary).items()]
        lines += [f"note: {note}" for note in summary.suite.notes]
    return "\n".join(lines)


def trusts(evaluation: Evaluation, summary: Summary) -> dict[str, str]:
    """By title of each metric that a judge gave here, how far that judge is to be trusted."""
    shown = titles(evaluation)
    found = {metric: evaluation.metrics[metric].trust for metric in summary.estimates}
    return {shown[metric]: line for metric, line in found.items() if line and _any(summary, metric)}


def _any(summary: Summary, metric: str) -> bool:
    return any(e for found in summary.estimates[metric].values() for e in found.values())


def distance_tables(evaluation: Evaluation, suite: SuiteResults) -> list[Table]:
    """Entries by distances; none where there are none."""
    columns = {
        _marked(evaluation, metric): cells
        for metric, info in evaluation.metrics.items()
        if (cells := _distances(suite, metric, info, "#.4g"))
    }
    if not columns:
        return []
    return [_table("Distance from the reference images", columns, evaluation.entries)]


def _distances(suite: SuiteResults, metric: str, info: MetricInfo, form: str) -> dict[str, Cell]:
    found = {name: judged.distances.get(metric) for name, judged in suite.judged.items()}
    known = {name: x for name, x in found.items() if x is not None and math.isfinite(x)}
    best = _best(known, info)
    ranges = {name: suite.judged[name].intervals.get(metric) for name in known}
    notes = {name: (_range(*ends, form),) if ends else () for name, ends in ranges.items()}
    return {name: Cell(f"{x:{form}}", notes[name], name in best) for name, x in known.items()}


def digits(parts: Iterable[Mapping[str, Estimate | None]]) -> int:
    """Decimals that the narrowest interval warrants, from 2 to 4: 2 for 0.55 ± 0.06."""
    halves = [
        (e.high - e.low) / 2
        for found in parts
        for e in found.values()
        if e and e.low is not None and e.high is not None and e.high > e.low
    ]
    return max(2, min(4, math.ceil(-math.log10(min(halves) / 2)))) if halves else 4


def _tables(
    evaluation: Evaluation,
    found: Mapping[str, Mapping[str, Mapping[str, Cell]]],
    entries: Sequence[Entry],
) -> list[Table]:
    """From cells by metric, part and entry."""
    shared, tables = {}, []
    for metric, columns in found.items():
        if len(columns) > 1:
            tables.append(_table(_marked(evaluation, metric), columns, entries))
        for part, cells in columns.items() if len(columns) == 1 else ():
            shared[_marked(evaluation, metric, "" if part == OVERALL else part)] = cells
    return ([_table("", shared, entries)] if shared else []) + tables


def _table(
    title: str, columns: Mapping[str, Mapping[str, Cell]], entries: Sequence[Entry]
) -> Table:
    rows = [
        Row(entry.name, [cells.get(entry.name, Cell()) for cells in columns.values()])
        for entry in entries
    ]
    return Table(title, list(columns), rows)


def titles(evaluation: Evaluation) -> dict[str, str]:
    """By metric: its title, with its name where two have the same, as two modes of one metric."""
    shown = [info.title for info in evaluation.metrics.values()]
    return {
        name: info.title if shown.count(info.title) == 1 else f"{info.title} [{name}]"
        for name, info in evaluation.metrics.items()
    }


def _marked(evaluation: Evaluation, metric: str, part: str = "") -> str:
    way = "higher" if evaluation.metrics[metric].higher else "lower"
    return f"{titles(evaluation)[metric]}{part and f', {part}'} ({way} is better)"


def _cells(found: Mapping[str, Estimate | None], info: MetricInfo, places: int) -> dict[str, Cell]:
    known = {name: e.value for name, e in found.items() if e is not None}
    best = _best(known, info)
    return {
        name: Cell(f"{e.value:.{places}f}", (_range(e.low, e.high, f".{places}f"),), name in best)
        for name, e in found.items()
        if e is not None
    }


def _best(values: Mapping[str, float], info: MetricInfo) -> set[str]:
    """Names with the best value; none where all have it, or there is but one."""
    if len(set(values.values())) < 2:
        return set()
    best = (max if info.higher else min)(values.values())
    return {name for name, value in values.items() if value == best}


def _range(low: float | None, high: float | None, form: str) -> str:
    if low is None or high is None:
        return "1 prompt"
    between = " to " if "+" in form else "–"  # a dash and a minus are hard to tell apart
    return f"{_number(low, form)}{between}{_number(high, form)}"


def _difference(test: Paired | None, info: MetricInfo, places: int) -> Cell:
    if test is None:
        return Cell()
    form = f"+.{places}f"
    # a win is a better score, which need not be a higher one
    wins, losses = (test.wins, test.losses) if info.higher else (test.losses, test.wins)
    p = f"p = {test.p:.2g}" if test.p >= 0.001 else "p < 0.001"
    counts = f"{wins} won, {losses} lost, {test.ties} tied"
    return Cell(_number(test.difference, form), (_range(test.low, test.high, form), p, counts))


def _number(value: float, form: str) -> str:
    text = f"{value:{form}}".replace("-", "−")
    return text if any(digit in text for digit in "123456789") else text.replace("−", "+")


# The paper's layout -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """Where a column of the paper's table is found in ours."""

    suite: str
    metric: str
    digits: int
    category: str = ""


PAPER_COLUMNS = {
    "short FID": Measure("short", "fid", 2),
    "short aesthetics": Measure("short", "aesthetic-v2", 3),
    "short CLIP": Measure("short", "clip-score", 4),
    "long aesthetics": Measure("long", "aesthetic-v2", 3),
    "long CLIP": Measure("long", "clip-score", 4),
    "colour": Measure("t2i-compbench", "blip-vqa", 4, "color"),
    "shape": Measure("t2i-compbench", "blip-vqa", 4, "shape"),
    "texture": Measure("t2i-compbench", "blip-vqa", 4, "texture"),
    # the official scorer's result alone; numbers of `spatial-owlv2` mean something else
    "spatial": Measure("t2i-compbench", "unidet", 4, "spatial"),
    "non-spatial": Measure("t2i-compbench", "clip-nonspatial", 4, "non-spatial"),
    "complex": Measure("t2i-compbench", "3-in-1", 4, "complex"),
}
"""By the keys of `recipes.METRICS`, in the paper's order."""
SD_14 = "stable-diffusion-v1-4"
ALONE = "SD 1.4 alone"


def paper_table(evaluation: Evaluation, summaries: Sequence[Summary]) -> Table | None:
    """The paper's columns: each entry above what the paper says of it; None without its suites."""
    present = {summary.suite.name.partition(":")[0] for summary in summaries}
    if not present & {place.suite for place in PAPER_COLUMNS.values()}:
        return None
    cells = {
        column: _paper_cells(evaluation, summaries, place)
        for column, place in PAPER_COLUMNS.items()
    }
    told = published(evaluation)
    rows = []
    for entry in evaluation.entries:
        rows.append(Row(entry.name, [cells[c].get(entry.name, Cell()) for c in PAPER_COLUMNS]))
        if entry.name in told:
            name, scores = told[entry.name]
            rows.append(_published_row(f"published: {name}", scores))
    if any(name == ALONE for name, _ in told.values()):
        shown = [scores for _, scores in told.values()]
        rows += [
            _published_row(f"published: {name}", scores)
            for name, scores in ABLATIONS.items()
            if scores not in shown
        ]
    columns = [f"{c}\N{NO-BREAK SPACE}{'↓' if c == 'short FID' else '↑'}" for c in PAPER_COLUMNS]
    return Table("In the paper's layout", columns, rows)


def published(evaluation: Evaluation) -> dict[str, tuple[str, dict[str, float]]]:
    """By entry: the paper's row for it, and the figures in that row."""
    found = {}
    for entry in evaluation.entries:
        if entry.recipe and (scores := recipe(entry.recipe).scores):
            found[entry.name] = (entry.recipe, scores)
        elif entry.about.get("kind") == "image model" and SD_14 in str(entry.about.get("vision")):
            found[entry.name] = (ALONE, ABLATIONS[ALONE])
    return found


def _paper_cells(
    evaluation: Evaluation, summaries: Sequence[Summary], place: Measure
) -> dict[str, Cell]:
    info = evaluation.metrics.get(place.metric)
    # only what the official code does, quirks and all, compares with what the paper has
    if info is None or info.provenance.get("mode") == "fixed":
        return {}
    for summary in summaries:
        if summary.suite.name.partition(":")[0] != place.suite:
            continue
        if found := summary.estimates.get(place.metric, {}).get(place.category or OVERALL):
            return _cells(found, info, place.digits)
        if cells := _distances(summary.suite, place.metric, info, f".{place.digits}f"):
            return cells
    return {}


def _published_row(label: str, scores: Mapping[str, float]) -> Row:
    cells = [Cell(f"{scores[c]:.{place.digits}f}") for c, place in PAPER_COLUMNS.items()]
    return Row(label, cells, published=True)
