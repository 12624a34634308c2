"""What asking a judge found: measures of each metric's wording, by category, text and change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lavi_bridge.evaluate.judges.calibration import Answers, Measures, measures
from lavi_bridge.evaluate.judges.items import DRAWN, PAIRS, Case, Item
from lavi_bridge.evaluate.report.tables import OVERALL

MISTAKES = 12
"""Of each section those that are shown, the most confident first, one of a pair."""
BY: dict[str, Callable[[Item], str]] = {
    "category": lambda item: item.category,
    "text": lambda item: item.kind,
    "change": lambda item: item.change,
}
"""How answers are parted."""


@dataclass(frozen=True)
class Mistake:
    """An answer that is wrong."""

    item: Item
    score: float
    case: Case


@dataclass(frozen=True)
class Section:
    """How the judge did in one metric's wording, on pictures of one source."""

    metric: str
    title: str
    source: str
    overall: Measures
    parts: dict[str, dict[str, Measures]]
    """By the keys of BY, then by part; none where all is of one part."""
    crossed: dict[str, dict[str, Measures]]
    """By category, then by kind of text."""
    mistakes: list[Mistake]


@dataclass(frozen=True)
class Result:
    """All of it."""

    name: str
    """Of the judge."""
    judge: dict[str, str]
    """Its provenance."""
    metrics: dict[str, dict[str, str]]
    """By metric: what its score depends on, the judge among it."""
    settings: dict[str, Any]
    sections: list[Section]


def sections_of(
    cases: Sequence[Case], scores: Mapping[str, float], titles: Mapping[str, str]
) -> list[Section]:
    """Sum up.

    Args:
        scores: by item.
        titles: of the metrics, by name.
    """
    found = []
    case_of = {item.id: case for case in cases for item in case.items}
    for metric, title in titles.items():
        for source in (PAIRS, DRAWN):
            items = [
                item
                for case in cases
                for item in case.items
                if (item.metric, item.source) == (metric, source)
            ]
            if items:
                found.append(_section(metric, title, source, items, scores, case_of))
    return found


def _section(
    metric: str,
    title: str,
    source: str,
    items: Sequence[Item],
    scores: Mapping[str, float],
    case_of: Mapping[str, Case],
) -> Section:
    parts = {by: _parted(items, key, scores) for by, key in BY.items()}
    crossed = {
        category: _parted(mine, BY["text"], scores)
        for category, mine in _groups(items, BY["category"]).items()
    }
    mistakes: dict[str, Mistake] = {}
    wrong = [item for item in items if (scores[item.id] > 0.5) != item.true]
    for item in sorted(wrong, key=lambda item: -abs(scores[item.id] - 0.5)):
        mistakes.setdefault(item.cluster, Mistake(item, scores[item.id], case_of[item.id]))
    return Section(
        metric,
        title,
        source,
        measured(items, scores),
        {by: found for by, found in parts.items() if len(found) > 1},
        crossed,
        list(mistakes.values())[:MISTAKES],
    )


def _groups(items: Iterable[Item], key: Callable[[Item], str]) -> dict[str, list[Item]]:
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item) or OVERALL, []).append(item)
    return groups


def _parted(
    items: Sequence[Item], key: Callable[[Item], str], scores: Mapping[str, float]
) -> dict[str, Measures]:
    return {part: measured(mine, scores) for part, mine in _groups(items, key).items()}


def measured(items: Sequence[Item], scores: Mapping[str, float]) -> Measures:
    """The measures of some items."""
    return measures(
        Answers(
            np.array([scores[item.id] for item in items]),
            np.array([item.true for item in items]),
            [item.cluster for item in items],
            [item.category for item in items],
            [item.text for item in items],
        )
    )
