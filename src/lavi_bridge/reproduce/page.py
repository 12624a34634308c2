"""The page: the tables with intervals, the paper's figures, budgets, conclusions and pictures.

The same results give the same page, but for its last section, which tells the time it took.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

from lavi_bridge.errors import BridgeError
from lavi_bridge.evaluate.report.forest import standalone
from lavi_bridge.evaluate.statistics import Paired
from lavi_bridge.files.atomic import make_folder, write_text
from lavi_bridge.recipes import METRICS
from lavi_bridge.reproduce.cells import (
    NONE,
    cell,
    column_title,
    number,
    table_grid,
)
from lavi_bridge.reproduce.conclusions import claims_table, counts, curves, marks
from lavi_bridge.reproduce.options import ReproduceConfig
from lavi_bridge.reproduce.records import NAME, pack
from lavi_bridge.reproduce.results import EXACT, FLOOR, MARGIN, Finding, Results
from lavi_bridge.reproduce.rows import TABLES, Table, missing, rows_of, table_of
from lavi_bridge.reproduce.settings import budget, folder, rates, search_share
from lavi_bridge.show.tables import markdown
from lavi_bridge.train.options import TrainConfig
from lavi_bridge.version import __version__

READING, END = "<!-- reading -->", "<!-- /reading -->"
"""What is written by hand stands between these, and is kept when the page is written again."""
NAMES = {False: "paper-in-miniature", True: "paper-tables"}
"""The page's title, with the bundled and with the real models."""


def write_page(config: ReproduceConfig) -> Path:
    """Write the page, its pictures and `results.json`; return the page's path.

    Tables whose rows were finished by earlier calls are on it, too.

    Raises:
        BridgeError: a row that was asked for is not finished.
    """
    results = Results(config, rows_of(config.tables, full=config.full))
    names: list[str] = list(config.tables)
    for name in TABLES:
        if name not in names:
            try:
                Results(config, rows_of([name], full=config.full))
            except BridgeError:
                continue  # not finished, and not asked for
            names.append(name)
    names.sort(key=list(TABLES).index)
    results = Results(config, rows_of(names, full=config.full))
    tables = [table_of(name, full=config.full) for name in names]
    out = folder(config)
    write_text(out / "results.json", json.dumps(record(results, tables), indent=1) + "\n")
    page = out / f"{NAMES[config.full]}.md"
    for path in [page, config.page] if config.page else [page]:
        write_text(path, "\n".join(_page(results, tables, path)) + "\n")
        page = path
    return page


def record(results: Results, tables: Sequence[Table]) -> dict[str, object]:
    """Everything in numbers, for machines; nothing here knows the time."""
    return {
        "version": __version__,
        "seeds": results.config.seeds,
        "rows": {
            slug: {
                "budget": {
                    k: v
                    for k, v in results.records(slug)[0].items()
                    if k in ("parameters", "factor", "rates", "warm start", "pictures")
                },
                "scores": {
                    c.title: asdict(e) for c in results.columns if (e := results.estimate(slug, c))
                },
                "published": row.published,
            }
            for slug, row in results.rows.items()
        },
        "conclusions": [
            {
                "table": table.name,
                "claim": f.conclusion.claim,
                "first": f.conclusion.first,
                "second": f.conclusion.second,
                "measure": f.column.title,
                "verdict": f.verdict,
                "difference": _plain(f.difference),
            }
            for table in tables
            for f in results.findings(table)
        ],
    }


def _plain(found: Paired | None) -> dict[str, object] | None:
    if found is None:
        return None
    return {
        k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(found).items()
    }


# Sections -----------------------------------------------------------------------------------------


def _page(results: Results, tables: Sequence[Table], path: Path) -> Iterator[str]:
    pictures = path.parent / path.stem
    make_folder(pictures)
    yield from _head(results, tables)
    findings = {table.name: results.findings(table) for table in tables}
    every = [f for group in findings.values() for f in group]
    yield from _reading(results, every, _written(path))
    for table in tables:
        yield from _section(results, table, findings[table.name], pictures)
    yield from _budgets(results)
    pack(results.places, pictures / NAME)
    yield from _records(results, pictures)
    yield from _time(results)


def _head(results: Results, tables: Sequence[Table]) -> Iterator[str]:
    config = results.config
    told = f"lavi-bridge reproduce {' '.join(t.name for t in tables)} {_flags(config)}"
    yield "# The paper in miniature\n" if not config.full else "# The paper's tables\n"
    yield (
        "The tables of LaVi-Bridge (arXiv 2403.07860), made again by one command, which wrote this "
        f"page, too:\n\n```sh\n{told}\n```\n"
    )
    if not config.full:
        yield (
            "The models are the small ones of the [zoo](zoo.md): they learned the language and the "
            "pictures of a world of drawn shapes, in which a scorer can be exact. What the paper "
            "concludes from large models is asked of these, with training seeds, intervals and "
            "tests. It shows what the method does at this size and in runs this short; "
            "it is no substitute for the same command with `--full`.\n"
        )
    yield (
        f"Every trained row has {config.seeds} training seed{'s' * (config.seeds > 1)}"
        + (
            f"; every row and seed draws the same {_prompts(results)} prompts with the same noise"
            if not config.full
            else ""
        )
        + ". Intervals are 95 %, for new training seeds and new prompts (of the same categories) "
        "at once: crossed random effects, Student's t with Satterthwaite's degrees of freedom, so "
        "that few seeds count as few"
        + ("; one seed says nothing of other seeds" if config.seeds == 1 else "")
        + ". Differences are paired: the same prompt, noise and training seed in either row; "
        "intervals are not corrected for the number of tests. *No gain* holds where a gain above "
        f"{number(MARGIN, 2)} is excluded. Distances have Student's interval "
        f"over seeds.{'' if config.full else _left_out()}\n"
    )
    if not config.full:
        yield from _legend(results)


def _legend(results: Results) -> Iterator[str]:
    """What the columns are."""
    yield (
        "What is measured: the share of prompts of which everything that is asked for is drawn, by "
        "an exact scorer,\n"
    )
    yield "\n".join(f"- *{c.title}*: {c.meaning}" for c in results.columns if c.meaning) + "\n"
    yield (
        "The columns between are *plain* by category, a sixth of its prompts each. Bold is the "
        f"best of the rows that were trained; of shares, from {FLOOR:.0%} on.\n"
    )


def _left_out() -> str:
    """Which language models are missing here."""
    return "".join(f" Left out: {name} ({reason})." for name, reason in missing().items())


def _flags(config: ReproduceConfig) -> str:
    """What was asked for beside the tables, where it bears on the numbers."""
    flags = ["--full" if config.full else "--zoo", f"--seeds {config.seeds}"]
    for name in ("budget", "scale", "prompts", "rates", "suites", "device"):
        value = getattr(config, name)
        if value != getattr(ReproduceConfig(["languages"]), name):
            shown = shlex.join(map(str, value)) if isinstance(value, list) else value
            flags.append(f"--{name} {shown}")
    return " ".join(flags)


def _prompts(results: Results) -> int:
    record = next(iter(results.records(next(iter(results.rows)))))
    return sum(len(suite["categories"]) for suite in record["suites"].values())


def _reading(results: Results, findings: Sequence[Finding], by_hand: str) -> Iterator[str]:
    """What was written by hand, which is kept, and how many of the verdicts are of each kind."""
    yield "## The reading\n"
    yield f"{READING}\n{by_hand}\n{END}\n"
    yield (
        f"All verdicts of the tables below, counted ({marks()}). Measures of the same pictures go "
        "together, and a claim has as many verdicts as measures: these are no independent tests.\n"
    )
    yield counts(results, findings) + "\n"
    if not results.config.full:
        yield (
            "What no bundled model can tell: aesthetics and CLIP score (nothing here relates such "
            "pictures to such texts; the share of facts that are met stands in for it), and "
            "whether the differences grow or vanish with real sizes and 50,000 steps. "
            "The Fréchet distance sees paper, contrast and edges of the pictures, not what is "
            "drawn.\n"
        )


def _written(path: Path) -> str:
    """What was written by hand between the marks of a page that is there."""
    if not path.is_file():
        return ""
    _, marked, rest = path.read_text(encoding="utf-8").partition(f"{READING}\n")
    return rest.partition(f"\n{END}")[0] if marked else ""


def _section(
    results: Results, table: Table, findings: Sequence[Finding], pictures: Path
) -> Iterator[str]:
    yield f"## {table.name.capitalize()}: {table.title}\n"
    yield from _scores(results, table)
    names = {row.slug: column_title(row, table) for row in table.rows}
    if not results.config.full:
        svg = standalone(
            "plain prompts, with 95 % intervals",
            {names[row.slug]: {"": results.estimate(row.slug, EXACT)} for row in table.rows},
        )
        write_text(pictures / f"{table.name}.svg", svg)
        yield f"![exact scores with intervals]({pictures.name}/{table.name}.svg)\n"
    yield from claims_table(results, findings)
    if plotted := curves(results, table, names):
        write_text(pictures / f"{table.name}-steps.svg", plotted)
        yield (
            "On their way, by step on pictures, under our recipe: 0 is the end of the warm start. "
            f"The mean of all seeds; {budget(results.config).followed_by} prompts of a suite, "
            "evenly over their categories, with the same noise at every step (and other noise than "
            "in the table):\n\n"
            f"![exact score by training step]({pictures.name}/{table.name}-steps.svg)\n"
        )
    if published := {row.title: row.published for row in table.rows if row.published}:
        yield "What the paper has for the same rows (real models, 50,000 steps, no intervals):\n"
        told = [
            [title, *(f"{scores[metric]:g}" for metric in METRICS)]
            for title, scores in published.items()
        ]
        yield markdown(["", *METRICS], told, "lr") + "\n"
    if made := table_grid(results, table, names, pictures):
        yield (
            "The same prompts and seeds in every column, some of each suite (first training "
            f"seed):\n\n![pictures]({made})\n"
        )


def _scores(results: Results, table: Table) -> Iterator[str]:
    arrows = [f"{c.title}\N{NO-BREAK SPACE}{'↑' if c.higher else '↓'}" for c in results.columns]
    best: dict[str, set[str]] = {}
    for column in results.columns:
        found = {
            row.slug: e.value
            for row in table.rows
            if (e := results.estimate(row.slug, column)) and row.trained
        }
        if found and len(set(found.values())) > 1:
            top = (max if column.higher else min)(found.values())
            if column.distance or top >= FLOOR:
                best[column.title] = {slug for slug, value in found.items() if value == top}
    rows = []
    for row in table.rows:
        cells = [
            cell(
                results.estimate(row.slug, column),
                column.digits,
                best=row.slug in best.get(column.title, ()),
            )
            for column in results.columns
        ]
        rows.append([column_title(row, table), *cells])
    yield markdown(["", *arrows], rows, "lr") + "\n"


def _budgets(results: Results) -> Iterator[str]:
    """What every row was given."""
    config = results.config
    yield "## Budgets\n"
    tried = " or ".join(f"{r:g}" for r in rates(config))
    held_out = TrainConfig.validation if config.full else budget(config).validation
    if len(rates(config)) > 1:
        searched = "every row" if len(rates(config, "paper")) > 1 else "our recipe's rows"
        yield (
            "All rows of one recipe have the same steps and batches. Rates on pictures of "
            f"{searched} were chosen by one search: {tried} times the recipe's, "
            f"{search_share(config):.0%} of the steps with a training seed of its own, and the "
            f"lowest loss on {held_out} held-out pairs at fixed noise. What was chosen stands in "
            "the table.\n"
        )
    head = [
        "row",
        "recipe",
        "adapter",
        "LoRA, language",
        "LoRA, image model",
        "in all",
        "texts of the start",
        "pictures",
        "rates ×",
        "rates: start / adapter / language / image model",
    ]
    rows = []
    for slug, row in results.rows.items():
        if not row.trained:
            continue
        record = results.records(slug)[0]
        parts = record["parameters"]
        warm, pictures, rate = record["warm start"], record["pictures"], record["rates"]
        rows.append(
            [
                f"`{slug}`",
                row.recipe,
                *(f"{parts[k]:,}" for k in ("adapter", "language_lora", "vision_lora")),
                f"{sum(parts.values()):,}",
                f"{warm['steps']:,} × {warm['batch']}" if warm else NONE,
                f"{pictures['steps']:,} × {pictures['batch']}",
                f"{record['factor']:g}",
                " / ".join(
                    [
                        f"{warm['rate']:.2g}" if warm else NONE,
                        *(f"{rate[k]:.2g}" for k in ("adapter", "language", "vision")),
                    ]
                ),
            ]
        )
    yield markdown(head, rows, "llrrrrrrrl") + "\n"
    if not config.full:
        yield (
            "*ours* is a warm start on plain captions (where a row says so, half of them are pairs "
            "of a free and a plain text instead; the own encoder has none), then pictures, a "
            "cosine schedule, no dropout, one caption in ten left out; "
            "*paper* is pictures alone under the published settings (constant rate, dropout .1, no "
            "caption left out, the language model's rate a twentieth), but for the length, LoRA of "
            "rank 16, ten times the rates, and no mirroring, because captions speak of left and "
            "right. Both see the same pictures, every fourth with a caption told freely, and "
            f"are judged by an average of their weights (decay {budget(config).average:g}).\n"
        )


def _records(results: Results, pictures: Path) -> Iterator[str]:
    yield "## Records\n"
    yield (
        f"Settings, searches, the scores of every picture and the losses of every run are in "
        f"[`{pictures.name}/{NAME}`]({pictures.name}/{NAME}). Unpacked into a folder that "
        "`--out` names, they are where the same command goes on: it writes this page without the "
        "grids, or adds `--seeds`.\n"
    )


def _time(results: Results) -> Iterator[str]:
    seconds = results.seconds
    total = sum(seconds.values())
    parts = ", ".join(f"{kind} {value / 3600:.1f}" for kind, value in seconds.items())
    unit = "GPU" if results.config.full else "core"
    runs: dict[str, list[float]] = {}
    for slug, row in results.rows.items():
        if row.trained:
            spent = [record["seconds"]["training"] for record in results.records(slug)]
            runs.setdefault(row.recipe, []).extend(spent)
    means = ", ".join(f"{fmean(spent):,.0f} s under *{name}*" for name, spent in runs.items())
    yield "## What it took\n"
    yield (
        f"{total / 3600:.1f} {unit}-hours in all ({parts}); each row had one process, several side "
        f"by side. A training run took {means} on average. Made on: "
        f"{'; '.join(results.machines) or 'not noted'}.\n"
    )
