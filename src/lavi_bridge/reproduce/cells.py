"""Cells of the tables of a page, and its grids of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from lavi_bridge.evaluate.drawing import Picture
from lavi_bridge.evaluate.entries import suite_folder
from lavi_bridge.evaluate.statistics import Estimate, Paired
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.prompts.suites import load_suite
from lavi_bridge.recipes import METRICS
from lavi_bridge.reproduce.results import Column, Finding, Results, Verdict
from lavi_bridge.reproduce.rows import Row, Table
from lavi_bridge.reproduce.settings import (
    Places,
    evaluation,
)
from lavi_bridge.show.pictures import grid

SHOWN = 8
"""Prompts in a grid."""
NONE = "–"
MARKS: dict[Verdict, str] = {"holds": "✔", "reversed": "✘", "undecided": "○", "unseen": "?"}


def column_title(row: Row, table: Table) -> str:
    """A row's name in a table; where a table has two recipes, with the recipe."""
    recipes = {r.recipe for r in table.rows if r.trained}
    return f"{row.title} ({row.recipe})" if row.trained and len(recipes) > 1 else row.title


def cell(found: Estimate | None, digits: int, *, best: bool) -> str:
    if found is None:
        return NONE
    value = number(found.value, digits)
    value = f"**{value}**" if best else value
    if found.low is None or found.high is None:
        return value
    return f"{value}<br>{number(found.low, digits)}–{number(found.high, digits)}"


def difference_cell(found: Paired | None, column: Column) -> str:
    if found is None:
        return NONE
    digits = max(3, column.digits) if not column.distance else column.digits
    text = number(found.difference, digits, "+")
    if found.low is None or found.high is None:
        return text
    return f"{text} ({number(found.low, digits, '+')} to {number(found.high, digits, '+')})"


def number(value: float, digits: int, sign: str = "") -> str:
    text = f"{value:{sign}.{digits}f}".replace("-", "−")
    if not any(digit in text for digit in "123456789"):
        text = text.replace("−", "").replace("+", "")
    return text.replace("0.", ".", 1) if text.lstrip("+−").startswith("0.") else text


def finding_cell(found: Finding) -> str:
    """A verdict's mark and the difference that it comes from."""
    return f"{MARKS[found.verdict]} {difference_cell(found.difference, found.column)}"


def in_paper(results: Results, f: Finding) -> str:
    """In how many of the paper's measures the first row is ahead; of ours, that it has none."""
    if not f.conclusion.paper:
        return "not asked"
    known = {
        slug.removesuffix("-paper"): row.published
        for slug, row in results.rows.items()
        if row.published
    }
    first, second = (
        known.get(slug.removesuffix("-paper")) for slug in (f.conclusion.first, f.conclusion.second)
    )
    if not first or not second:
        return NONE
    looks = [
        m for m in METRICS if ("FID" in m or "aesthetics" in m) == (f.conclusion.look == "pictures")
    ]
    ahead = sum((first[m] < second[m]) if "FID" in m else (first[m] > second[m]) for m in looks)
    return f"better in {ahead} of {len(looks)}"


def table_grid(results: Results, table: Table, names: dict[str, str], pictures: Path) -> str | None:
    """Write the grid of a table; its path relative to the page, or None where images are gone."""
    config = results.config
    settings = evaluation(table.rows[0], config, "", Path())
    asked = _some_of_each(
        {
            suite: _one_of_each(load_suite(suite, folder=settings.prompts, limit=settings.limit))
            for suite in settings.suites
        }
    )
    rows = []
    for suite, prompt in asked:
        files = [_image(results.places, row, suite, prompt) for row in table.rows]
        if not all(path.is_file() for path in files):
            return None
        rows.append([Image.open(path).convert("RGB") for path in files])
    sheet = grid(rows, columns=list(names.values()), labels=[prompt.text for _, prompt in asked])
    sheet.save(pictures / f"{table.name}.png")
    return f"{pictures.name}/{table.name}.png"


def _one_of_each(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The first prompt of each category."""
    found: dict[str, Prompt] = {}
    for prompt in prompts:
        found.setdefault(prompt.category, prompt)
    return list(found.values())


def _some_of_each(suites: Mapping[str, Sequence[Prompt]]) -> list[tuple[str, Prompt]]:
    """SHOWN prompts, or all: as many of each suite, the next suite's of the next categories."""
    every = list(suites.items())
    turns = [(at, n) for n in range(SHOWN) for at, (_, p) in enumerate(every) if n < len(p)]
    found = []
    for at, turn in sorted(turns[:SHOWN]):
        suite, prompts = every[at]
        found.append((suite, prompts[(turn + 2 * at) % len(prompts)]))
    return found


def _image(places: Places, row: Row, suite: str, prompt: Prompt) -> Path:
    """Where a row's first seed has its picture of a prompt."""
    of_row = places.job(row, 0) / "evaluation" / row.slug
    return of_row / suite_folder(suite) / "images" / Picture(prompt, 0, 0).file
