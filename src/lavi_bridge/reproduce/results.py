"""What a finished run found: every score by row, seed and prompt, summed up with intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lavi_bridge.errors import BridgeError
from lavi_bridge.evaluate.report.tables import PAPER_COLUMNS
from lavi_bridge.evaluate.statistics import Estimate, Paired, over_runs, paired_runs, student
from lavi_bridge.reproduce.budgets import BY_HAND, FREE, HELD_OUT, LONG, PLAIN
from lavi_bridge.reproduce.options import ReproduceConfig
from lavi_bridge.reproduce.rows import Conclusion, Row, Table
from lavi_bridge.reproduce.settings import Places, evaluation, folder, seeds_of
from lavi_bridge.shapes.world import CATEGORIES

Array = NDArray[np.float64]
Verdict = Literal["holds", "reversed", "undecided", "unseen"]

FLOOR = 0.02
"""An exact score that says: nothing that was asked for is drawn."""
MARGIN = 0.02
"""A gain that is too small to count: "no gain" holds where a larger one is excluded."""


@dataclass(frozen=True)
class Column:
    """One measure of the tables."""

    title: str
    suite: str
    metric: str
    category: str = ""
    digits: int = 2
    distance: bool = False
    look: Literal["prompts", "pictures", ""] = ""
    """Which conclusions are tested by it."""
    meaning: str = ""
    """What a reader is told of it."""

    @property
    def higher(self) -> bool:
        """Whether more is better."""
        return not self.distance


EXACT = Column(
    "plain",
    PLAIN,
    "shapes",
    look="prompts",
    meaning="prompts in the grammar that the image models learned from",
)
FACTS = Column(
    "facts met",
    PLAIN,
    "shapes-facts",
    look="prompts",
    meaning="the share of the facts of a plain prompt; a picture of something else meets about .4",
)
DISTANCE = Column(
    "Fréchet distance",
    PLAIN,
    "shapes-fd",
    distance=True,
    look="pictures",
    meaning="of the pictures of plain prompts from the scenes that these were written from",
)
ZOO_COLUMNS = (
    EXACT,
    Column(
        "free",
        FREE,
        "shapes",
        look="prompts",
        meaning="the same scenes [as people tell them](free-form.md), in turns of speech that no "
        "training text has",
    ),
    Column(
        "held out",
        HELD_OUT,
        "shapes",
        look="prompts",
        meaning="free prompts with one kind of word held out, too",
    ),
    Column(
        "long",
        LONG,
        "shapes",
        look="prompts",
        meaning="free prompts among four sentences beside the matter",
    ),
    Column(
        "by hand",
        BY_HAND,
        "shapes",
        look="prompts",
        meaning="plain and free prompts that no generator made",
    ),
    *(Column(name, PLAIN, "shapes", name) for name in CATEGORIES),
    FACTS,
    DISTANCE,
)
"""Exact scores by suite, those of plain prompts by category, too, and the rest of plain prompts."""
OURS = {
    "unidet": ("spatial-owlv2", "spatial (OWLv2)"),
    "3-in-1": ("3-in-1-owlv2", "complex (3-in-1, OWLv2)"),
}
"""What stands in, under its own name, for the official scorers that are run by hand."""
FULL_COLUMNS = tuple(
    Column(
        OURS.get(place.metric, ("", name))[1],
        place.suite,
        OURS.get(place.metric, (place.metric,))[0],
        place.category,
        place.digits,
        place.metric == "fid",
        "pictures" if name == "short FID" or "aesthetics" in name else "prompts",
    )
    for name, place in PAPER_COLUMNS.items()
)


@dataclass(frozen=True)
class Finding:
    """A conclusion, tested by one measure."""

    conclusion: Conclusion
    column: Column
    difference: Paired | None
    """How much better the first row is; None where a row lacks the measure."""
    verdict: Verdict
    reason: str = ""
    """Why the verdict is `unseen`."""


class Results:
    """The records of all rows and seeds in a folder.

    Raises:
        BridgeError: a record is missing, or they are of different prompts.
    """

    def __init__(self, config: ReproduceConfig, rows: Sequence[Row]) -> None:
        self.config, self.places = config, Places(folder(config))
        asked = set() if config.full else set(evaluation(rows[0], config, "", Path()).suites)
        self.columns = FULL_COLUMNS if config.full else _asked(ZOO_COLUMNS, asked)
        self.rows = {row.slug: row for row in rows}
        self._records: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            paths = [self.places.result(row, seed) for seed in seeds_of(row, config)]
            if missing := [path for path in paths if not path.is_file()]:
                raise BridgeError(f"'{missing[0]}' is missing: the same command makes it")
            self._records[row.slug] = [json.loads(p.read_text(encoding="utf-8")) for p in paths]
        drawn: dict[str, str] = {}
        for records in self._records.values():
            for name, suite in ((n, s) for record in records for n, s in record["suites"].items()):
                if drawn.setdefault(name, suite["prompts"]) != suite["prompts"]:
                    raise BridgeError(
                        f"rows in '{self.places.out}' were drawn from different prompts of '{name}'"
                    )

    def records(self, slug: str) -> list[dict[str, Any]]:
        """The records of a row, by seed."""
        return self._records[slug]

    def estimate(self, slug: str, column: Column) -> Estimate | None:
        """A row's mean over seeds and prompts; None where it has no such score."""
        if column.distance:
            values = self._distances(slug, column)
            if values is None:
                return None
            e = over_seeds(values)
            return e if e.low is None else replace(e, low=max(0.0, e.low))
        scores = self._scores(slug, column)
        if scores is None:
            return None
        values, strata = _known(scores[1], scores[0])
        return over_runs(values, strata) if strata else None

    def difference(self, first: str, second: str, column: Column) -> Paired | None:
        """How much better the first row is than the second; below 0: worse."""
        if column.distance:
            a, b = (self._distances(slug, column) for slug in (first, second))
            if a is None or b is None:
                return None
            gap = b - a
            e = over_seeds(gap)
            wins, losses = int((gap > 0).sum()), int((gap < 0).sum())
            return Paired(
                e.value, e.low, e.high, math.nan, wins, losses, len(gap) - wins - losses, len(gap)
            )
        mine, theirs = (self._scores(slug, column) for slug in (first, second))
        if mine is None or theirs is None:
            return None
        a, b, strata = _known(mine[1], mine[0], theirs[0])
        return paired_runs(a, b, strata) if strata else None

    def findings(self, table: Table) -> list[Finding]:
        """Every conclusion of a table, by every measure that tells of it."""
        return [
            self._finding(conclusion, column)
            for conclusion in table.conclusions
            for column in self.columns
            if column.look == conclusion.look
        ]

    def _finding(self, conclusion: Conclusion, column: Column) -> Finding:
        first, second = conclusion.first, conclusion.second
        found = self.difference(first, second, column)
        if found is None:
            return Finding(conclusion, column, None, "unseen", "a score is missing")
        if reason := self._blind(first, second, column):
            return Finding(conclusion, column, found, "unseen", reason)
        low, high = found.low, found.high
        if low is None or high is None:
            reason = "one seed has no spread" if column.distance else "no prompt tells them apart"
            return Finding(conclusion, column, found, "unseen", reason)
        verdict: Verdict = "undecided"
        if conclusion.gain:
            verdict = "holds" if low > 0 else "reversed" if high < 0 else "undecided"
        elif low > 0 or high < MARGIN:
            verdict = "reversed" if low > 0 else "holds"
        if verdict != "holds" and conclusion.gain and self._not_begun(first):
            reason = f"`{first}` does not yet draw what it is told"
            return Finding(conclusion, column, found, "unseen", reason)
        return Finding(conclusion, column, found, verdict)

    def _not_begun(self, slug: str) -> bool:
        """Whether a row of the bundled models draws nothing of plain prompts: its run is short."""
        return not self.config.full and self._exact(slug) < FLOOR

    def _blind(self, first: str, second: str, column: Column) -> str:
        """Why the bundled models cannot show it, if they cannot."""
        if self.config.full:
            return ""
        for slug in (first, second):
            alone = f"{self.rows[slug].vision}-alone"
            if alone in self._records and self._exact(alone) < FLOOR:
                title = self.rows[alone].title.partition(" alone")[0]
                return f"the bundled {title} draws nothing that it is told even by itself"
        if (
            column.metric == EXACT.metric
            and max(self._exact(slug, column) for slug in (first, second)) < FLOOR
        ):
            alone = f"{self.rows[first].vision}-alone"
            if alone in self._records and self._exact(alone, column) < FLOOR:
                return f"neither row, nor the image model alone, gets {FLOOR:.0%} of such prompts"
            return f"neither row gets {FLOOR:.0%} of the prompts right in so short a run"
        return ""

    def on_its_way(self, slug: str, suite: str) -> list[tuple[float, float]]:
        """Mean exact scores by training step, of the same prompts and noise.

        [] where it was not followed, or not by this suite. Steps at which not every seed was judged
        are left out.
        """
        records = self._records[slug]
        looks = [record.get("on its way") or {} for record in records]
        if not all(suite in found for look in looks for found in look.values()):
            return []
        return [
            (float(step), fmean(_mean_of(look[step][suite]) for look in looks))
            for step in looks[0]
            if all(step in look for look in looks)
        ]

    def _exact(self, slug: str, column: Column = EXACT) -> float:
        scores = self._scores(slug, column)
        return math.inf if scores is None else float(np.nanmean(scores[0]))

    def _scores(self, slug: str, column: Column) -> tuple[Array, list[str]] | None:
        """Scores (runs, prompts), a prompt's images averaged, and the prompts' categories.

        Not a number: where a scorer failed.
        """
        rows, strata = [], list[str]()
        for record in self._records[slug]:
            suite = _suite(record, column.suite)
            if suite is None or column.metric not in suite["scores"]:
                return None
            pairs = zip(suite["scores"][column.metric], suite["categories"], strict=True)
            kept = [pair for pair in pairs if column.category in ("", pair[1])]
            rows.append([_mean(values) for values, _ in kept])
            strata = [category for _, category in kept]
        return np.array(rows), strata

    def _distances(self, slug: str, column: Column) -> Array | None:
        """A distance by seed."""
        suites = [_suite(record, column.suite) for record in self._records[slug]]
        found = [suite["distances"].get(column.metric) for suite in suites if suite]
        return np.array(found) if found and None not in found else None

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Seconds spent, by kind of work, over all processes."""
        total = {"search": 0.0, "training": 0.0, "evaluation": 0.0}
        for slug, row in self.rows.items():
            path = self.places.search(row)
            if path.is_file():
                total["search"] += json.loads(path.read_text(encoding="utf-8"))["seconds"]
            for record in self._records[slug]:
                for kind, seconds in record["seconds"].items():
                    total[kind] += seconds
        return total

    @cached_property
    def machines(self) -> list[str]:
        """What the runs were made on, as each notes it."""
        told = (record.get("machine") for found in self._records.values() for record in found)
        return sorted({name for name in told if name})


def over_seeds(values: Array) -> Estimate:
    """The mean of one number a seed, with Student's interval; one seed has none."""
    count, mean = len(values), float(values.mean())
    if count < 2:
        return Estimate(mean, None, None, count)
    half = student(count - 1) * float(values.std(ddof=1)) / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half, count)


def _asked(columns: Sequence[Column], suites: Container[str]) -> tuple[Column, ...]:
    return tuple(column for column in columns if column.suite in suites)


def _mean_of(suite: dict[str, Any]) -> float:
    """The mean exact score of a suite; an image that could not be judged is left out."""
    return float(np.nanmean([_mean(values) for values in suite["scores"]["shapes"]]))


def _mean(values: Sequence[float | None]) -> float:
    """The mean over a prompt's images; not a number where none has a score."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan


def _known(strata: list[str], *scores: Array) -> tuple[Any, ...]:
    """Scores (runs, prompts) of the prompts that have one in every run, and their categories."""
    there = np.logical_and.reduce([~np.isnan(array).any(axis=0) for array in scores])
    kept = [category for category, yes in zip(strata, there, strict=True) if yes]
    return *(array[:, there] for array in scores), kept


def _suite(record: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The scores of a suite."""
    found: dict[str, Any] | None = record["suites"].get(name)
    return found
