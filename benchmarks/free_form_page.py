"""Writes what free_form.py has measured into a page: `python benchmarks/free_form_page.py`.

The tables stand between markers, `<!-- NAME -->` and `<!-- /NAME -->`, and are replaced there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from free_form import NEEDS, OWN, RATES, ROWS, SEARCH_STEPS, SUITES, Row, searched, slug
from tables import Found, cell, versus, write_page

from lavi_bridge.prompts.suites import load_suite


def results(out: Path, rows: Sequence[Row]) -> Found:
    """By name, the results of the seeds that are there."""
    found: Found = {}
    for name, folders in [
        (OWN, [out / "own"]),
        *((row.name, [out / slug(row, seed) for seed in row.seeds]) for row in rows),
    ]:
        files = [folder / "result.json" for folder in folders]
        there = [json.loads(f.read_text(encoding="utf-8")) for f in files if f.is_file()]
        if there:
            found[name] = there
    return found


def tables(out: Path) -> Iterator[tuple[str, list[str]]]:
    """The measured parts of the page, by the name of their markers."""
    found = results(out, ROWS)
    known = {row.name: row for row in ROWS}
    names = [OWN, *(name for name in known if name in found)]
    lines = [
        "| reads prompts | LoRA | seeds | plain | free | held out | long | by hand |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        row = known.get(name)
        cells = [cell(found, name, suite) for suite in SUITES]
        lora = row.lora if row else "–"
        lines.append(f"| {name} | {lora} | {len(found[name])} | " + " | ".join(cells) + " |")
    yield "scores", lines
    both = ("color", "shape")
    lines = [
        "| reads prompts | plain | free | free less own encoder's | held out less MiniLM's |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        less = "" if name == OWN else versus(found, name, OWN, "shapes-free", both)
        held = ""
        if "MiniLM" in found and name != "MiniLM":
            held = versus(found, name, "MiniLM", "shapes-free-heldout")
        plain, free = (cell(found, name, s, both) for s in ("shapes", "shapes-free"))
        lines.append(f"| {name} | {plain} | {free} | {less} | {held} |")
    yield "color-and-shape", lines
    for suite in ("shapes-free", "shapes-free-heldout"):
        categories = list(dict.fromkeys(p.category for p in load_suite(suite)))
        lines = [
            "| reads prompts | " + " | ".join(categories) + " |",
            "|---" * (len(categories) + 1) + "|",
        ]
        for name in names:
            cells = [cell(found, name, suite, [kind]) for kind in categories]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        if "MiniLM" in found:
            for name in names:
                if name != "MiniLM":
                    cells = [versus(found, "MiniLM", name, suite, [kind]) for kind in categories]
                    lines.append(f"| MiniLM less {name} | " + " | ".join(cells) + " |")
        yield suite, lines
    lines = [
        "| reads prompts | trained | rate | steps | seconds | peak | unmatched | pairs | long |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names[1:]:
        how = [run["how"] for run in found[name]]
        trained = sum(how[0]["trained"].values()) / 1e6
        seconds, steps = (
            float(np.median([one[key] for one in how])) for key in ("seconds", "steps")
        )
        memory = "peak GB of the GPU" if "peak GB of the GPU" in how[0] else "peak GB"
        lines.append(
            f"| {name} | {trained:.2f} M | {how[0]['rate']:g} | {steps:,.0f} | {seconds:,.0f} | "
            f"{max(one[memory] for one in how):.1f} GB | "
            f"{np.mean([one['unmatched'] for one in how]):.3f} | {how[0]['pairs read']:,} | "
            f"{how[0]['long texts read whole']} of 128 |"
        )
    yield "costs", lines
    needs = results(out, NEEDS)
    lines = [
        "| MiniLM, 800 steps of 32 | seeds | unmatched | plain | free | held out |",
        "|---|---|---|---|---|---|",
    ]
    for name in (row.name for row in NEEDS if row.name in needs):
        cells = [cell(needs, name, suite) for suite in SUITES[:3]]
        left = np.mean([run["how"]["unmatched"] for run in needs[name]])
        lines.append(f"| {name} | {len(needs[name])} | {left:.3f} | " + " | ".join(cells) + " |")
    yield "needs", lines
    lines = [
        f"| unmatched after {SEARCH_STEPS} steps | "
        + " | ".join(f"{rate:g}" for rate in RATES)
        + " |",
        "|---" * (len(RATES) + 1) + "|",
    ]
    for row in ROWS:
        files = [searched(row, rate, out) for rate in RATES]
        if all(file.is_file() for file in files):
            left_over = [json.loads(f.read_text(encoding="utf-8"))["unmatched"] for f in files]
            lines.append(f"| {row.name} | " + " | ".join(f"{x:.3f}" for x in left_over) + " |")
    yield "rates", lines
    machines = sorted({run["how"]["machine"] for runs in found.values() for run in runs})
    yield "machine", ["Machine: " + "; ".join(machines) + "."]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/free-form"))
    parser.add_argument("--page", type=Path, default=Path("docs/free-form.md"))
    options = parser.parse_args()
    write_page(options.page, tables(options.out))


if __name__ == "__main__":
    main()
