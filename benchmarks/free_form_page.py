"""Writes what free_form.py has measured into a page: `python benchmarks/free_form_page.py`.

The tables stand between markers, `<!-- NAME -->` and `<!-- /NAME -->`, and are replaced there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from free_form import NEEDS, OWN, RATES, ROWS, SEARCH_STEPS, SUITES, Row, searched, slug
from numpy.typing import NDArray

from lavi_bridge.evaluate.statistics import over_runs, paired_runs
from lavi_bridge.files.atomic import write_text
from lavi_bridge.prompts.suites import load_suite

Found = dict[str, list[dict[str, Any]]]
"""Results by the name of their row, one a seed."""


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


def values(
    found: Found, name: str, suite: str, kinds: Sequence[str] = ()
) -> tuple[NDArray[np.float64], list[str]]:
    """Scores (runs, prompts) of a suite, or of some of its categories, and their categories."""
    categories = [prompt.category for prompt in load_suite(suite)]
    picked = [i for i, category in enumerate(categories) if not kinds or category in kinds]
    rows = [[run["scores"][suite]["exact"][i] for i in picked] for run in found[name]]
    return np.array(rows, dtype=np.float64), [categories[i] for i in picked]


def cell(found: Found, name: str, suite: str, kinds: Sequence[str] = ()) -> str:
    of = over_runs(*values(found, name, suite, kinds))
    ends = "" if of.low is None else f" ({_short(of.low)}–{_short(of.high or 0.0)})"
    return f"{_short(of.value)}{ends}"


def versus(found: Found, a: str, b: str, suite: str, kinds: Sequence[str] = ()) -> str:
    left, strata = values(found, a, suite, kinds)
    right, _ = values(found, b, suite, kinds)
    if len(left) != len(right) and 1 not in (len(left), len(right)):
        count = min(len(left), len(right))
        left, right = left[:count], right[:count]
    of = paired_runs(left, right, strata)
    if of.low is None or of.high is None:
        return f"{of.difference:+.3f}"
    return f"{of.difference:+.3f} ({of.low:+.3f} to {of.high:+.3f})"


def _short(value: float) -> str:
    return f"{value:.2f}".lstrip("0") if value < 1 else f"{value:.2f}"


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


def write_page(page: Path, out: Path) -> None:
    """Put the tables between their markers, `<!-- NAME -->` and `<!-- /NAME -->`."""
    text = page.read_text(encoding="utf-8")
    for name, lines in tables(out):
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if start not in text or end not in text:
            raise SystemExit(f"{page} has no markers for '{name}'")
        before, _, rest = text.partition(start)
        text = before + start + "\n".join(lines) + "\n" + end + rest.partition(end)[2]
    write_text(page, text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/free-form"))
    parser.add_argument("--page", type=Path, default=Path("docs/free-form.md"))
    options = parser.parse_args()
    write_page(options.page, options.out)


if __name__ == "__main__":
    main()
