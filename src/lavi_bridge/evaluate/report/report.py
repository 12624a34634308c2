"""The report of an evaluation: one page that holds all it shows, Markdown, and JSON.

The same evaluation gives the same bytes: nothing here knows the time or where it runs.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup
from PIL import Image

from lavi_bridge.evaluate.report.forest import COLORS, forest, mark
from lavi_bridge.evaluate.report.sweep import curve, sweeps
from lavi_bridge.evaluate.report.tables import (
    NONE,
    PAPER_COLUMNS,
    Summary,
    Table,
    clipped,
    distance_tables,
    markdown_table,
    paired_tables,
    paper_table,
    published,
    score_tables,
    summarize,
    titles,
    trusts,
)
from lavi_bridge.evaluate.results import Evaluation, Judged, SuiteResults
from lavi_bridge.files.atomic import write_text
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.show.html import data_url, render
from lavi_bridge.show.tables import escaped, markdown
from lavi_bridge.version import __version__

EXAMPLES, EXAMPLES_OF_CATEGORY = 24, 4
"""Prompts whose pictures a suite shows."""
SMALL, THUMBNAIL = 128, 256
"""Pixels: pictures up to the first are shown as they are, others no larger than the second."""
LISTED = 200
"""Failures of a metric on the page; all are in report.json."""

ABOUT_INTERVALS = (
    "Every number is a mean over prompts of the mean over their images, with its 95 % interval: "
    "percentile bootstrap over prompts, redrawn within their category; Wilson's where all are 0 or "
    "all are 1. Of a distance, Student's, by a jackknife that leaves out 20 groups of prompts in "
    "turn; the reference is taken as it is. The best of a column is bold."
)
ABOUT_PAIRED = (
    "Difference to {} on the same prompts and seeds (of folders of images, whatever seeds those "
    "are of), with its 95 % bootstrap interval, the "
    "two-sided p of a sign-flip permutation test over prompts (not corrected for the number of "
    "comparisons), and the prompts won, lost and tied."
)
ABOUT_PAPER = (
    "Published: arXiv 2403.07860, tables 1 to 3, without intervals. Its short prompts are a subset "
    "of COCO 2014 that is not public, its long ones what Llama-2 made of them: compare with care."
)


@dataclass(frozen=True)
class Picture:
    """What one entry made of a prompt."""

    entry: str
    file: str
    """Relative to the report; empty where there is none."""
    scores: dict[str, float | None]
    """By metric; None where it failed."""


@dataclass(frozen=True)
class Example:
    """A prompt with its first picture by every entry, all from one seed."""

    prompt: Prompt
    seed: int | None
    pictures: list[Picture]


@dataclass(frozen=True)
class Section:
    """What is said of one suite."""

    suite: SuiteResults
    facts: str
    scores: list[Table]
    paired: list[Table]
    distances: list[Table]
    trusts: dict[str, str]
    """How far the judges of these scores are to be trusted, by metric."""
    failures: list[tuple[str, list[str], int]]
    """What failed, the lines shown, and how many more there are."""
    examples: list[Example]


def write_report(evaluation: Evaluation, out: Path) -> None:
    """Write `report.json`, `report.md` and `report.html` into a folder, each whole or not at all.

    A picture that cannot be read is named in its place.
    """
    summaries = summarize(evaluation)
    sections = [_section(evaluation, summary, out) for summary in summaries]
    paper = paper_table(evaluation, summaries)
    record = _record(evaluation, summaries, sections)
    text = json.dumps(record, indent=1, ensure_ascii=False, default=str) + "\n"
    write_text(out / "report.json", text)
    write_text(out / "report.md", "\n".join(_markdown(evaluation, paper, sections)) + "\n")
    write_text(out / "report.html", _page(evaluation, paper, summaries, sections, out))


# What is said -------------------------------------------------------------------------------------


def _section(evaluation: Evaluation, summary: Summary, out: Path) -> Section:
    suite = summary.suite
    return Section(
        suite,
        _facts(suite),
        score_tables(evaluation, summary),
        paired_tables(evaluation, summary),
        distance_tables(evaluation, suite),
        trusts(evaluation, summary),
        list(_failures(evaluation, suite)),
        [_example(evaluation, suite, place, out) for place in _shown(suite)],
    )


def _facts(suite: SuiteResults) -> str:
    images = _span([len(seeds) for seeds in suite.seeds])
    plural = "" if images == "1" else "s"
    every = " for every prompt" if len(set(map(tuple, suite.seeds))) == 1 else ""
    seeds = _span([seed for seeds in suite.seeds for seed in seeds])
    return (
        f"{len(suite.prompts):,} prompts (list {suite.hash}), {images} image{plural} a prompt, "
        f"seeds {seeds}{every}"
    )


def _span(numbers: Sequence[int]) -> str:
    if not numbers:
        return NONE
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _failures(evaluation: Evaluation, suite: SuiteResults) -> Iterator[tuple[str, list[str], int]]:
    shown = titles(evaluation)
    for name, judged in suite.judged.items():
        for metric, lines in judged.failures.items():
            if lines:
                what = f"{name}, {shown.get(metric, metric)}: {len(lines):,} not judged"
                yield what, lines[:LISTED], len(lines[LISTED:])


def _shown(suite: SuiteResults) -> list[int]:
    met: Counter[str] = Counter()
    shown = []
    for place, prompt in enumerate(suite.prompts):
        met[prompt.category] += 1
        if met[prompt.category] <= EXAMPLES_OF_CATEGORY:
            shown.append(place)
    return shown[:EXAMPLES]


def _example(evaluation: Evaluation, suite: SuiteResults, place: int, out: Path) -> Example:
    judged = {e.name: suite.judged[e.name] for e in evaluation.entries if e.name in suite.judged}
    found = {name: _first_scores(one, place) for name, one in judged.items()}
    applies = [m for m in evaluation.metrics if any(s.get(m) is not None for s in found.values())]
    pictures = [
        Picture(name, _relative(one.files[place], out), {m: found[name].get(m) for m in applies})
        for name, one in judged.items()
    ]
    seeds = suite.seeds[place]
    return Example(suite.prompts[place], seeds[0] if seeds else None, pictures)


def _first_scores(judged: Judged, place: int) -> dict[str, float | None]:
    return {m: scores[place][0] for m, scores in judged.scores.items() if scores[place]}


def _relative(images: Sequence[Path], out: Path) -> str:
    return Path(os.path.relpath(images[0], out)).as_posix() if images else ""


# JSON ---------------------------------------------------------------------------------------------


def _record(
    evaluation: Evaluation, summaries: Sequence[Summary], sections: Sequence[Section]
) -> dict[str, Any]:
    told = published(evaluation)
    return {
        "version": __version__,
        "settings": evaluation.settings,
        "entries": [asdict(entry) for entry in evaluation.entries],
        "metrics": {name: asdict(info) for name, info in evaluation.metrics.items()},
        "suites": [
            {
                "name": summary.suite.name,
                "title": summary.suite.title,
                "prompt_hash": summary.suite.hash,
                "prompts": len(summary.suite.prompts),
                "categories": Counter(prompt.category for prompt in summary.suite.prompts),
                "images_per_prompt": sorted({len(seeds) for seeds in summary.suite.seeds}),
                "seeds": summary.suite.seeds,
                "estimates": _plain(summary.estimates),
                "paired": _plain(summary.paired),
                "distances": {
                    name: {m: x if math.isfinite(x) else None for m, x in judged.distances.items()}
                    for name, judged in summary.suite.judged.items()
                },
                "intervals": {
                    name: {
                        m: ends
                        for m, ends in judged.intervals.items()
                        if all(map(math.isfinite, ends))
                    }
                    for name, judged in summary.suite.judged.items()
                },
                "failures": {n: j.failures for n, j in summary.suite.judged.items()},
                "notes": summary.suite.notes,
                "examples": [asdict(example) for example in section.examples],
            }
            for summary, section in zip(summaries, sections, strict=True)
        ],
        "published": {
            "source": "arXiv 2403.07860",
            "columns": {column: asdict(place) for column, place in PAPER_COLUMNS.items()},
            "rows": {name: {"row": row, "scores": scores} for name, (row, scores) in told.items()},
        },
    }


def _plain(found: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    return {
        metric: {
            part: {name: value and asdict(value) for name, value in row.items()}
            for part, row in by_part.items()
        }
        for metric, by_part in found.items()
    }


# Markdown -----------------------------------------------------------------------------------------


def _markdown(
    evaluation: Evaluation, paper: Table | None, sections: Sequence[Section]
) -> Iterator[str]:
    first = evaluation.entries[0].name
    yield "# Evaluation\n"
    yield f"{ABOUT_INTERVALS}\n"
    if paper:
        yield f"## {paper.title}\n\n{ABOUT_PAPER}\n"
        yield from markdown_table(replace(paper, title=""))
    for section in sections:
        yield f"## {clipped(section.suite.title)}\n\n{clipped(section.facts)}\n"
        for note in section.suite.notes:
            yield f"- **Note:** {clipped(note)}"
        for what, lines, more in section.failures:
            yield f"- **{clipped(what)}**"
            yield from (f"  - {clipped(line)}" for line in lines)
            if more:
                yield f"  - and {more:,} more in report.json"
        if section.suite.notes or section.failures:
            yield ""
        for table in section.scores + section.distances:
            yield from markdown_table(table)
        for metric, line in section.trusts.items():
            yield f"*{clipped(metric)}:* {escaped(line)}\n"
        if section.paired:
            yield f"### Compared with {clipped(first)}\n\n{ABOUT_PAIRED.format(clipped(first))}\n"
        for table in section.paired:
            yield from markdown_table(table)
        if section.examples:
            yield "### Pictures\n"
            yield _markdown_examples(section.examples)
    for title, text in _provenance(evaluation):
        yield f"<details><summary>{title}</summary>\n\n~~~json\n{text}\n~~~\n\n</details>\n"


def _markdown_examples(examples: Sequence[Example]) -> str:
    names = [picture.entry for picture in examples[0].pictures]
    rows = []
    for example in examples:
        files = [picture.file for picture in example.pictures]
        shown = [f"![]({quote(file)})" if file else NONE for file in files]
        rows.append([clipped(example.prompt.text), *shown])
    return markdown(["prompt", *map(clipped, names)], rows) + "\n"


def _provenance(evaluation: Evaluation) -> list[tuple[str, str]]:
    return [
        (title, json.dumps(value, indent=2, ensure_ascii=False, default=str))
        for title, value in (
            ("Provenance of the entries", [asdict(entry) for entry in evaluation.entries]),
            (
                "Provenance of the metrics",
                {name: asdict(info) for name, info in evaluation.metrics.items()},
            ),
            ("Settings", evaluation.settings),
        )
    ]


# The page -----------------------------------------------------------------------------------------


def _page(
    evaluation: Evaluation,
    paper: Table | None,
    summaries: Sequence[Summary],
    sections: Sequence[Section],
    out: Path,
) -> str:
    return render(
        "lavi_bridge.evaluate.report",
        "report.html",
        entries=evaluation.entries,
        first=evaluation.entries[0].name,
        paper=paper,
        parts=[
            (section, _forests(evaluation, summary), _curves(evaluation, summary))
            for section, summary in zip(sections, summaries, strict=True)
        ],
        provenance=_provenance(evaluation),
        titles=titles(evaluation),
        none=NONE,
        inlined=lambda picture: _inlined(out, picture),
        shown=_score_shown,
        mark=mark,
        about_intervals=ABOUT_INTERVALS,
        about_paired=ABOUT_PAIRED,
        about_paper=ABOUT_PAPER,
        colors=COLORS,
        version=__version__,
    )


def _forests(evaluation: Evaluation, summary: Summary) -> list[Markup]:
    names = [entry.name for entry in evaluation.entries]
    shown = titles(evaluation)
    return [forest(shown[metric], found, names) for metric, found in summary.estimates.items()]


def _curves(evaluation: Evaluation, summary: Summary) -> list[Markup]:
    shown, swept = titles(evaluation), sweeps(evaluation.entries)
    whole = {metric: next(iter(found.values())) for metric, found in summary.estimates.items()}
    drawn = [curve(shown[metric], one, found) for one in swept for metric, found in whole.items()]
    return [one for one in drawn if one is not None]


def _score_shown(score: float | None) -> str:
    return NONE if score is None else f"{score:.3g}"


def _inlined(out: Path, picture: Picture) -> tuple[str, bool] | None:
    """A picture as a data URL, and whether its pixels are to be seen; None where it cannot be."""
    if not picture.file:
        return None
    try:
        with Image.open(out / picture.file) as opened:
            image = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError):  # what Pillow raises for damaged files
        return None
    small = max(image.size) <= SMALL
    if not small:
        image.thumbnail((THUMBNAIL, THUMBNAIL))
    return data_url(image, jpeg=not small), small
