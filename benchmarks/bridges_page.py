"""Writes what bridges.py has measured into a page: `python benchmarks/bridges_page.py`.

The tables stand between markers, `<!-- NAME -->` and `<!-- /NAME -->`, and are replaced there; the
figures go into a folder beside the page.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bridges import (
    ADAPTERS,
    KEEPING,
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
)
from figures import Line, draw_lines
from tables import Found, cell, short, values, versus, write_page

from lavi_bridge.evaluate.statistics import over_runs
from lavi_bridge.files.atomic import write_text

BASE = ADAPTERS[0]
PLAIN, FREE = SUITES[:2]


def read(file: Path) -> dict[str, Any] | None:
    """What a job left; None where it did not come to its end."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def chosen(scores: dict[str, list[int]], kind: str) -> str:
    """The exact score on the prompts for choosing, with its interval over prompts."""
    strata = [prompt.category for prompt in choosing()[kind]]
    of = over_runs(np.array([scores[kind]], dtype=np.float64), strata)
    if of.low is None or of.high is None:
        return short(of.value)
    return f"{short(of.value)} ({short(of.low)}–{short(of.high)})"


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


def begun(out: Path) -> list[str]:
    """How the starts of `linear` and the paper's adapter compare, by what they cost."""
    lines = [
        "| adapter | start | steps | seconds | unmatched | plain | free |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in STARTS:
        if found := read(out / slug(row.name, SEEDS[0]) / "screen.json"):
            how = found["how"]
            told = ("ridge, then " if row.solve != "none" else "") + row.match
            told = "ridge alone" if not row.steps else told
            cells = " | ".join(chosen(found["scores"], kind) for kind in ("plain", "free"))
            lines.append(
                f"| `{row.adapter}` | {told} | {how['steps']} | {took(how):.0f} | "
                f"{how['left']:.3f} | {cells} |"
            )
    return lines


def took(how: dict[str, Any]) -> float:
    """Seconds of a start, solving included."""
    return float(how["seconds"] + how.get("solved", {}).get("seconds", 0.0))


def in_full(out: Path) -> Found:
    """Results of the suites by row, one a seed that is there."""
    found: Found = {}
    if own := read(out / "own" / "full.json"):
        found[OWN] = [own]
    for row in finalists(out):
        runs = [read(out / slug(row.name, seed) / "full.json") for seed in SEEDS]
        if there := [run for run in runs if run]:
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
    folders = [out / slug(f"pictures {what.name}", seed) for seed in SEEDS]
    whole = [f for f in folders if (f / f"judged-{what.steps}.json").is_file()]
    return [run for f in whole if (run := read(f / f"judged-{step}.json"))]


def kept(out: Path) -> list[str]:
    """What is left of free language where all parts train on pictures, or the image model alone."""
    lines = ["| trains on pictures | prompts | before | after |", "|---|---|---|---|"]
    for what in KEEPING:
        runs = {step: trained(out, what, step) for step in (0, what.steps)}
        if all(runs.values()):
            for kind, suite in (("plain", PLAIN), ("free", FREE)):
                cells = [cell({"": found}, "", suite) for found in runs.values()]
                lines.append(f"| {what.name} | {kind} | " + " | ".join(cells) + " |")
    return lines


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
            told = [versus(found, name, base, suite)]
            told += [versus(found, name, base, suite, [kind]) for kind in kinds]
            lines.append(f"| {name}, less {base} | " + " | ".join(told) + " |")
    return lines


def strengths(out: Path) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """By run on pictures and kind of prompt, the score by strength of each part (first seed)."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for what in PICTURES:
        scores = read(out / slug(f"pictures {what.name}", SEEDS[0]) / "strengths.json") or {}
        for key, kinds in scores.items():
            part, scale = key.split()
            for kind, exact in kinds.items():
                lines = found.setdefault(f"{what.name}: {kind} prompts", {})
                point = float(scale), sum(exact) / len(exact)
                lines.setdefault(part.replace("_", " "), []).append(point)
    return found


def swept(out: Path) -> list[str]:
    """The sweeps as a table."""
    lines = [
        "| | part | " + " | ".join(f"{scale:g}" for scale in SCALES) + " |",
        "|---" * (len(SCALES) + 2) + "|",
    ]
    for title, parts in strengths(out).items():
        for part, points in parts.items():
            at = dict(points)
            cells = [short(at[scale]) if scale in at else "" for scale in SCALES]
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
    yield "starts", begun(out)
    yield "finals", finals(found)
    yield "steps-plain", by_step(out, PLAIN)
    yield "steps-free", by_step(out, FREE)
    yield "categories-plain", by_category(last, PLAIN)
    yield "categories-free", by_category(last, FREE)
    yield "keeping", kept(out)
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
                title: [Line(part, points) for part, points in parts.items()]
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
    options = parser.parse_args()
    write_page(options.page, tables(options.out))
    folder = options.page.with_suffix("")
    folder.mkdir(exist_ok=True)
    for name, svg in figures(options.out):
        write_text(folder / name, svg)


if __name__ == "__main__":
    main()
