"""Writes what bridges.py has measured into a page: `python benchmarks/bridges_page.py`.

The tables stand between markers, `<!-- NAME -->` and `<!-- /NAME -->`, and are replaced there; the
figures go into a folder beside the page.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bridges import (
    ADAPTERS,
    CAPTIONS,
    FROZEN,
    LAYERS,
    OWN,
    PICTURES,
    RATES,
    SCALES,
    SEEDS,
    STARTS,
    SUITES,
    Pictures,
    Row,
    choosing,
    finalists,
    slug,
    trained_in,
)
from numpy.typing import NDArray
from tables import Found, cell, difference, told, values, versus, write_page

from lavi_bridge.evaluate.report.lines import Line, draw_lines
from lavi_bridge.evaluate.statistics import Estimate, over_runs, paired_runs
from lavi_bridge.files.atomic import write_text

BASE = ADAPTERS[0]
PLAIN, FREE = SUITES[:2]


def read(file: Path) -> dict[str, Any] | None:
    """What a job left; None where it did not come to its end."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def chosen(scores: dict[str, list[int]], kind: str) -> str:
    """The exact score on the prompts for choosing, with its interval over prompts."""
    strata = [prompt.category for prompt in choosing()[kind]]
    return told(over_runs(_run(scores[kind]), strata))


def screened(out: Path, rows: Sequence[Row]) -> list[str]:
    """One seed of each row on the prompts for choosing, and what it cost."""
    lines = [
        "| language model | adapter | reads | start | parameters | rate | seconds | GPU | plain | "
        "free |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    if own := read(out / "own" / "screen.json"):
        cells = " | ".join(chosen(own["scores"], kind) for kind in ("plain", "free"))
        lines.append(f"| {OWN} | – | – | – | – | – | – | – | {cells} |")
    for row in rows:
        if found := read(out / slug(row.name, SEEDS[0]) / "screen.json"):
            how = found["how"]
            cells = " | ".join(chosen(found["scores"], kind) for kind in ("plain", "free"))
            lines.append(
                f"| {row.language} | `{row.adapter}` | {row.layers} | {row.match} | "
                f"{how['trained']['adapter'] / 1e6:.2f} M | {how['rate']:g} | "
                f"{how['seconds']:.0f} | {how.get('peak GB of the GPU', 0):.1f} GB | {cells} |"
            )
    return lines


def frozen(out: Path) -> list[str]:
    """Layers read of language models that do not train: unmatched states, scores, seconds."""
    lines = [
        "| frozen | reads | unmatched | seconds | memory | plain | free | both, less last |",
        "|---|---|---|---|---|---|---|---|",
    ]
    strata = [f"{kind} {p.category}" for kind, prompts in choosing().items() for p in prompts]
    last: dict[str, list[int]] = {}
    for row in FROZEN:
        if found := read(out / slug(row.name, SEEDS[0]) / "screen.json"):
            how = found["how"]
            cells = " | ".join(chosen(found["scores"], kind) for kind in ("plain", "free"))
            both = [hit for kind in choosing() for hit in found["scores"][kind]]
            less = ""
            if row.layers == "last":
                last[row.language] = both
            elif row.language in last:
                less = difference(paired_runs(_run(both), _run(last[row.language]), strata))
            lines.append(
                f"| {row.language} | {row.layers} | {how['left']:.3f} | {how['seconds']:.0f} | "
                f"{how['peak GB']:.1f} GB | {cells} | {less} |"
            )
    return lines


def _run(scores: Sequence[int]) -> NDArray[np.float64]:
    """Scores of one run (1, prompts)."""
    return np.array([scores], dtype=np.float64)


def by_captions(out: Path) -> list[str]:
    """Brief runs on pictures by what their captions are, of one seed: scores by step."""
    steps = range(0, CAPTIONS[0].steps + 1, CAPTIONS[0].every)
    lines = [
        "| trained on pictures with | prompts | "
        + " | ".join(f"{step:,}" for step in steps)
        + " |",
        "|---" * (len(steps) + 2) + "|",
    ]
    for what in CAPTIONS:
        for title, suite in (("plain", PLAIN), ("free", FREE)):
            found = {str(step): runs for step in steps if (runs := trained(out, what, step))}
            if found:
                cells = [cell(found, str(step), suite) for step in steps]
                lines.append(f"| {what.name} | {title} | " + " | ".join(cells) + " |")
    return lines


def begun(out: Path) -> list[str]:
    """How the starts of `linear` and the paper's adapter compare, by what they cost."""
    lines = [
        "| adapter | start | steps | seconds | unmatched | plain | free |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in STARTS:
        if found := read(out / slug(row.name, SEEDS[0]) / "screen.json"):
            how = found["how"]
            how_begun = ("ridge, then " if row.solve != "none" else "") + row.match
            how_begun = "ridge alone" if not row.steps else how_begun
            cells = " | ".join(chosen(found["scores"], kind) for kind in ("plain", "free"))
            lines.append(
                f"| `{row.adapter}` | {how_begun} | {how['steps']} | {took(how):.0f} | "
                f"{how['left']:.3f} | {cells} |"
            )
    return lines


def took(how: dict[str, Any]) -> float:
    """Seconds of a start, solving included."""
    return float(how["seconds"] + how.get("solved", {}).get("seconds", 0.0))


def in_turn(files: Iterable[Path]) -> list[dict[str, Any]]:
    """What is there of the seeds, up to the first that is not: run i is always that of seed i."""
    found: list[dict[str, Any]] = []
    for file in files:
        if (run := read(file)) is None:
            break
        found.append(run)
    return found


def in_full(out: Path) -> Found:
    """Results of the suites by row, one a seed that is there."""
    found: Found = {}
    if own := read(out / "own" / "full.json"):
        found[OWN] = [own]
    for row in finalists(out):
        if there := in_turn(out / slug(row.name, seed) / "full.json" for seed in SEEDS):
            found[row.name] = there
    return found


def finals(found: Found) -> list[str]:
    """All suites, with intervals over seeds and prompts."""
    lines = [
        "| bridge | seeds | plain | free | held out | long | plain less the paper's | free less "
        "the paper's |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in found.items():
        cells = [cell(found, name, suite) for suite in SUITES]
        less = ["", ""]
        if name != BASE.name and BASE.name in found:
            less = [versus(found, name, BASE.name, suite) for suite in (PLAIN, FREE)]
        lines.append(f"| {name} | {len(runs)} | " + " | ".join([*cells, *less]) + " |")
    return lines


def trained(out: Path, what: Pictures, step: int) -> list[dict[str, Any]]:
    """What a run on pictures scored after so many steps, one a seed that came to its end."""
    folders = [trained_in(out, what, seed) for seed in SEEDS]
    ended = in_turn(folder / f"judged-{what.steps}.json" for folder in folders)
    return in_turn(folder / f"judged-{step}.json" for folder in folders[: len(ended)])


def by_step(out: Path, suite: str) -> list[str]:
    """Scores by step of the runs on pictures."""
    steps = [*range(0, PICTURES[0].steps + 1, PICTURES[0].every)]
    lines = [
        "| trained on pictures | seeds | " + " | ".join(f"{step:,}" for step in steps) + " |",
        "|---" * (len(steps) + 2) + "|",
    ]
    for what in PICTURES:
        found = {str(step): runs for step in steps if (runs := trained(out, what, step))}
        own = read(out / "own" / "full.json")
        if what.start is None and own:
            found.setdefault("0", [own])
        if found:
            cells = [cell(found, str(step), suite) if str(step) in found else "" for step in steps]
            seeds = len(found[str(what.steps)]) if str(what.steps) in found else 0
            lines.append(f"| {what.name} | {seeds} | " + " | ".join(cells) + " |")
    return lines


def ended(out: Path) -> Found:
    """The runs on pictures at their end, beside the image model alone."""
    found = {what.name: runs for what in PICTURES if (runs := trained(out, what, what.steps))}
    own = read(out / "own" / "full.json")
    return ({OWN: [own]} if own else {}) | found


def by_category(found: Found, suite: str) -> list[str]:
    """Scores by category, and what the bridges differ from the own encoder's by, paired."""
    kinds = list(dict.fromkeys(values(found, OWN, suite)[1]))
    lines = ["| " + " | ".join(["", "all", *kinds]) + " |", "|---" * (len(kinds) + 2) + "|"]
    for name in found:
        cells = [cell(found, name, suite), *(cell(found, name, suite, [kind]) for kind in kinds)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for name in list(found)[2:]:
        for base in list(found)[:2]:
            cells = [versus(found, name, base, suite)]
            cells += [versus(found, name, base, suite, [kind]) for kind in kinds]
            lines.append(f"| {name}, less {base} | " + " | ".join(cells) + " |")
    return lines


def strengths(out: Path) -> dict[str, dict[str, list[tuple[float, Estimate]]]]:
    """By run on pictures and kind of prompt, the score by strength of each part, over the seeds."""
    found: dict[str, dict[str, list[tuple[float, Estimate]]]] = {}
    for what in PICTURES:
        folders = [trained_in(out, what, seed) for seed in SEEDS]
        runs = in_turn(folder / "strengths.json" for folder in folders)
        for key in runs[0] if runs else ():
            part, scale = key.split()
            for kind, prompts in choosing().items():
                exact = np.array([run[key][kind] for run in runs], dtype=np.float64)
                of = over_runs(exact, [prompt.category for prompt in prompts])
                lines = found.setdefault(f"{what.name}: {kind} prompts", {})
                lines.setdefault(part.replace("_", " "), []).append((float(scale), of))
    return found


def swept(out: Path) -> list[str]:
    """The sweeps as a table."""
    lines = [
        "| | part | " + " | ".join(f"{scale:g}" for scale in SCALES) + " |",
        "|---" * (len(SCALES) + 2) + "|",
    ]
    for title, parts in strengths(out).items():
        for part, points in parts.items():
            cells = [told(of) for _, of in points]
            lines.append(f"| {title} | {part} | " + " | ".join(cells) + " |")
    return lines


def searched(out: Path) -> list[str]:
    """What was unmatched at each rate of the search."""
    lines = ["| | " + " | ".join(f"{rate:g}" for rate in RATES) + " |", "|---" * 4 + "|"]
    for file in sorted((out / "search").glob("*.json")):
        found = read(file) or {}
        if len(found) == len(RATES):
            name = file.stem.removesuffix("-150-steps-100").replace("-", " ")
            cells = [f"{found[str(rate)]:.3f}" for rate in RATES]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def tables(out: Path) -> Iterator[tuple[str, list[str]]]:
    """The measured parts of the page, by the name of their markers."""
    found, last = in_full(out), ended(out)
    yield "adapters", screened(out, ADAPTERS)
    last_layers = [row for row in ADAPTERS if row.adapter == "refiner" and row.match == "states"]
    yield "layers", screened(out, [*last_layers, *LAYERS])
    yield "frozen", frozen(out)
    yield "starts", begun(out)
    yield "captions", by_captions(out)
    yield "finals", finals(found)
    yield "steps-plain", by_step(out, PLAIN)
    yield "steps-free", by_step(out, FREE)
    yield "categories-plain", by_category(last, PLAIN)
    yield "categories-free", by_category(last, FREE)
    yield "strengths", swept(out)
    yield "rates", searched(out)
    machines = {run["how"]["machine"] for runs in (*found.values(), *last.values()) for run in runs}
    yield "machine", ["Machine: " + "; ".join(sorted(machines)) + "."]


def figures(out: Path) -> Iterator[tuple[str, str]]:
    """The figures, by the name of their file."""
    panels: dict[str, list[Line]] = {}
    for adapter in ("linear", "feedforward"):
        for kind in ("plain", "free"):
            by_way: dict[str, list[tuple[float, float]]] = {}
            for row in STARTS:
                found = read(out / slug(row.name, SEEDS[0]) / "screen.json")
                if row.adapter == adapter and found:
                    way = ("ridge, " if row.solve != "none" else "") + row.match
                    exact = found["scores"][kind]
                    by_way.setdefault(way, []).append((took(found["how"]), sum(exact) / len(exact)))
            title = f"{adapter}: {kind} prompts, by second"
            panels[title] = [Line(way, sorted(points)) for way, points in by_way.items()]
    yield "starts.svg", draw_lines(panels)
    panels = {}
    for title, suite in (("plain prompts, by step", PLAIN), ("free prompts, by step", FREE)):
        panels[title] = []
        for what in PICTURES:
            points = []
            for step in range(0, what.steps + 1, what.every):
                runs = trained(out, what, step)
                own = read(out / "own" / "full.json")
                if not runs and step == 0 and what.start is None and own:
                    runs = [own]
                if runs:
                    of = over_runs(*values({"": runs}, "", suite))
                    points.append((float(step), of.value))
            panels[title].append(Line(what.name, points))
    yield "pictures.svg", draw_lines(panels)
    yield (
        "strengths.svg",
        draw_lines(
            {
                title: [
                    Line(part, [(scale, of.value) for scale, of in points])
                    for part, points in parts.items()
                ]
                for title, parts in strengths(out).items()
            }
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bridges"))
    parser.add_argument("--page", type=Path, default=Path("docs/bridges.md"))
    parser.add_argument(
        "--only", nargs="*", help="tables that are written (unset: all, and the figures)"
    )
    options = parser.parse_args()
    made = tables(options.out)
    if options.only:
        write_page(options.page, [table for table in made if table[0] in options.only])
        return
    write_page(options.page, made)
    folder = options.page.with_suffix("")
    folder.mkdir(exist_ok=True)
    for name, svg in figures(options.out):
        write_text(folder / name, svg)


if __name__ == "__main__":
    main()
