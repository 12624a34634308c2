"""Tables of trained bridges: scores over runs, differences, and how they enter a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lavi_bridge.evaluate.statistics import Estimate, Paired, over_runs, paired_runs
from lavi_bridge.files.atomic import write_text
from lavi_bridge.prompts.suites import load_suite

Found = dict[str, list[dict[str, Any]]]
"""Results by the name of their row, one a seed."""


def values(
    found: Found, name: str, suite: str, kinds: Sequence[str] = ()
) -> tuple[NDArray[np.float64], list[str]]:
    """Scores (runs, prompts) of a suite, or of some of its categories, and their categories."""
    categories = [prompt.category for prompt in load_suite(suite)]
    picked = [i for i, category in enumerate(categories) if not kinds or category in kinds]
    rows = [[run["scores"][suite]["exact"][i] for i in picked] for run in found[name]]
    return np.array(rows, dtype=np.float64), [categories[i] for i in picked]


def cell(found: Found, name: str, suite: str, kinds: Sequence[str] = ()) -> str:
    return told(over_runs(*values(found, name, suite, kinds)))


def told(of: Estimate) -> str:
    """An estimate and its interval."""
    if of.low is None or of.high is None:
        return _short(of.value)
    return f"{_short(of.value)} ({_short(of.low)}–{_short(of.high)})"


def versus(found: Found, a: str, b: str, suite: str, kinds: Sequence[str] = ()) -> str:
    left, strata = values(found, a, suite, kinds)
    right, _ = values(found, b, suite, kinds)
    if len(left) != len(right) and 1 not in (len(left), len(right)):
        count = min(len(left), len(right))
        left, right = left[:count], right[:count]
    return difference(paired_runs(left, right, strata))


def difference(of: Paired) -> str:
    """A paired difference and its interval."""
    if of.low is None or of.high is None:
        return f"{of.difference:+.3f}"
    return f"{of.difference:+.3f} ({of.low:+.3f} to {of.high:+.3f})"


def _short(value: float) -> str:
    return f"{value:.2f}".lstrip("0") if value < 1 else f"{value:.2f}"


def write_page(page: Path, tables: Iterable[tuple[str, list[str]]]) -> None:
    """Put the tables between their markers, `<!-- NAME -->` and `<!-- /NAME -->`."""
    text = page.read_text(encoding="utf-8")
    for name, lines in tables:
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if start not in text or end not in text:
            raise SystemExit(f"{page} has no markers for '{name}'")
        before, _, rest = text.partition(start)
        text = before + start + "\n".join(lines) + "\n" + end + rest.partition(end)[2]
    write_text(page, text)
