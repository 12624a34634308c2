"""The tables of docs/models.md say what is measured; `make models` writes them."""

from pathlib import Path

import pytest

from lavi_bridge import testing
from tests.visions import page

SHOWN = [name for name in testing.VISIONS if name not in page.SAME]
AGREE = ("square", "2:1", "loud", "batch", "saved", "without gradient")
"""Columns that are at most a grey level, or none, wherever a pipeline lets it be compared."""


def cells(table: str, head: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """A table of the page by tiny model and column."""
    start, stop = page.marked(page.PAGE.read_text(encoding="utf-8"), table)
    lines = page.PAGE.read_text(encoding="utf-8")[start:stop].splitlines()[2:]
    assert len(lines) == len(SHOWN)
    rows = [[cell.strip() for cell in line.strip("|").split("|")][1:] for line in lines]
    return {n: dict(zip(head, row, strict=True)) for n, row in zip(SHOWN, rows, strict=True)}


@pytest.mark.parametrize("name", SHOWN)
def test_what_a_family_reads_is_what_the_page_says(name: str, tmp_path: Path) -> None:
    found = dict(zip(page.READS, page.reads(name, tmp_path, real_size=False), strict=True))
    told = cells("reads", page.READS)[name]
    assert {k: v for k, v in found.items() if v != "–"} == {
        k: v for k, v in told.items() if found[k] != "–"
    }


@pytest.mark.parametrize("name", SHOWN)
def test_the_page_shows_no_family_that_draws_otherwise(name: str) -> None:
    told = cells("draws", page.DRAWS)[name]
    assert all(int(told[k]) <= 1 for k in AGREE), told
    assert told["without gradient"] == "0"
    assert told["bfloat16"] == "yes"
    assert int(told["prompt moves"]) > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
def test_what_a_family_draws_is_what_the_page_says(name: str, tmp_path: Path) -> None:
    found = dict(zip(page.DRAWS, page.draws(name, tmp_path), strict=True))
    told = cells("draws", page.DRAWS)[name]
    for column in AGREE:
        assert abs(int(found[column]) - int(told[column])) <= 1, column  # of rounding
    assert found["bfloat16"] == told["bfloat16"]
    assert int(found["prompt moves"]) > 1
