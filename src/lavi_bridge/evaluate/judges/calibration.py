"""How far a judge's probabilities can be trusted: statistics of scores beside what is true.

All answers about one pair of pictures belong together: intervals redraw pairs, within their
category.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lavi_bridge.errors import BridgeError
from lavi_bridge.evaluate.statistics import Estimate, estimate, wilson

Array = NDArray[Any]

BINS = 10
"""Of a reliability diagram, of equal widths."""
DRAWS = 2000
LUCK = 500
"""Judges that are drawn to see what calibration error a calibrated one has."""
CHUNK = 1 << 21
"""Numbers that are weighed at once."""


@dataclass(frozen=True)
class Bin:
    """What a judge says with about one probability."""

    low: float
    high: float
    count: int
    said: float
    """Mean probability."""
    true: Estimate
    """The share that is true."""


@dataclass(frozen=True)
class Measures:
    """How a judge did on some questions."""

    questions: int
    pairs: int
    """What is redrawn: pairs of pictures, or prompts of drawn ones."""
    accuracy: Estimate
    """Where more than ½ is read as true; chance is ½."""
    auc: Estimate | None
    """Discrimination: how often what is true scores more than what is not; chance is ½. None where
    all is true, or nothing."""
    ranked: Estimate | None
    """The same, of the right and the changed picture of each text; chance is ½. None where no text
    has both."""
    ece: Estimate
    """Expected calibration error: mean distance of what is said from what is true, by bins."""
    lucky: float
    """What a calibrated judge that says the same would have of it by luck."""
    brier: Estimate
    """Mean squared error; that of ½ everywhere is ¼."""
    bins: list[Bin]


@dataclass(frozen=True)
class Answers:
    """Scores, what is true, and what belongs together: arrays (questions,)."""

    scores: Array  # in [0, 1]
    true: Array  # bool
    clusters: Sequence[str]
    strata: Sequence[str]
    texts: Sequence[str]

    def __post_init__(self) -> None:
        if not len(self.scores):
            raise BridgeError("no answers to sum up")


def measures(answers: Answers) -> Measures:
    """All statistics of some answers.

    Accuracy, Brier score and ranking are means over clusters of the mean over their answers, with
    the intervals of `statistics.estimate`; area and calibration error are over all answers, with
    percentile intervals of the same bootstrap.

    Raises:
        BridgeError: there is no answer.
    """
    scores, true = answers.scores, answers.true
    names, cluster = np.unique(np.array(answers.clusters), return_inverse=True)
    strata = [""] * len(names)
    for place, stratum in zip(cluster, answers.strata, strict=True):
        strata[place] = stratum

    def by_cluster(values: Array) -> Estimate:
        rows: list[list[float]] = [[] for _ in names]
        for place, value in zip(cluster, values.tolist(), strict=True):
            rows[place].append(value)
        return estimate(rows, strata)

    weights = _redrawn(strata)
    return Measures(
        len(scores),
        len(names),
        accuracy=by_cluster(((scores > 0.5) == true).astype(float)),
        auc=_auc(scores, true, cluster, weights),
        ranked=_ranked(answers, cluster, strata),
        ece=_ece(scores, true, cluster, weights),
        lucky=_lucky(scores),
        brier=by_cluster((scores - true) ** 2),
        bins=_bins(scores, true, cluster, weights),
    )


def _redrawn(strata: Sequence[str]) -> Array:
    """How often each cluster is drawn (DRAWS, clusters), within strata; lone ones together."""
    rng, weights = np.random.default_rng(0), np.zeros((DRAWS, len(strata)))
    groups: dict[str, list[int]] = {}
    for place, stratum in enumerate(strata):
        groups.setdefault(stratum, []).append(place)
    lone = [place for group in groups.values() if len(group) == 1 for place in group]
    for group in [*(g for g in groups.values() if len(g) > 1), *([lone] if lone else [])]:
        weights[:, group] = rng.multinomial(len(group), [1 / len(group)] * len(group), size=DRAWS)
    return weights


def _interval(value: float, drawn: Array, count: int) -> Estimate:
    known = drawn[np.isfinite(drawn)]  # a draw may have nothing in a bin, or nothing that is true
    if count < 2 or not len(known):
        return Estimate(value, None, None, count)
    low, high = np.quantile(known, [0.025, 0.975])
    return Estimate(value, float(low), float(high), count)


# ---- discrimination


def auc(scores: Array, true: Array, weights: Array) -> Array:
    """Area under the ROC curve by weights of the answers (draws, answers); ties count ½.

    NaN where all that counts is true, or nothing is.
    """
    order = np.argsort(scores, kind="stable")
    scores, true, weights = scores[order], true[order], weights[:, order]
    starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    yes = np.add.reduceat(weights * true, starts, axis=1)
    no = np.add.reduceat(weights * ~true, starts, axis=1)
    below = np.cumsum(no, axis=1) - no / 2
    pairs = yes.sum(axis=1) * no.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray((yes * below).sum(axis=1) / pairs)


def _auc(scores: Array, true: Array, cluster: Array, weights: Array) -> Estimate | None:
    if true.all() or not true.any():
        return None
    (value,) = auc(scores, true, np.ones((1, len(scores))))
    step = max(1, CHUNK // len(scores))
    parts = [
        auc(scores, true, weights[start : start + step, cluster])
        for start in range(0, len(weights), step)
    ]
    return _interval(float(value), np.concatenate(parts), weights.shape[1])


def _ranked(answers: Answers, cluster: Array, strata: Sequence[str]) -> Estimate | None:
    """How often a text's right picture scores more than its wrong one; ties count ½."""
    by_text: dict[str, list[int]] = {}
    for place, text in enumerate(answers.texts):
        by_text.setdefault(text, []).append(place)
    rows: list[list[float]] = [[] for _ in strata]
    for places in by_text.values():
        right = [p for p in places if answers.true[p]]
        wrong = [p for p in places if not answers.true[p]]
        for p in right:
            for q in wrong:
                a, b = answers.scores[p], answers.scores[q]
                rows[cluster[p]].append(1.0 if a > b else 0.5 if a == b else 0.0)
    return estimate(rows, strata) if any(rows) else None


# ---- calibration


def bin_of(scores: Array) -> Array:
    """The bin of each score, 0 to BINS - 1; 1 is in the last."""
    return np.minimum((scores * BINS).astype(int), BINS - 1)


def _sums(scores: Array, true: Array, cluster: Array, count: int) -> Callable[[Array], Array]:
    """By weights of clusters (draws, clusters): counts, scores and truths (3, draws, BINS)."""
    table = np.zeros((3, count, BINS))
    for part, values in zip(table, (np.ones(len(scores)), scores, true), strict=True):
        np.add.at(part, (cluster, bin_of(scores)), values)
    return lambda weights: np.asarray(weights @ table)


def _ece(scores: Array, true: Array, cluster: Array, weights: Array) -> Estimate:
    sums = _sums(scores, true, cluster, weights.shape[1])

    def errors(some: Array) -> Array:
        counts, said, right = sums(some)
        return np.asarray(abs(said - right).sum(axis=1) / counts.sum(axis=1))

    (value,) = errors(np.ones((1, weights.shape[1])))
    return _interval(float(value), errors(weights), weights.shape[1])


def _lucky(scores: Array) -> float:
    rng, bins = np.random.default_rng(0), bin_of(scores)
    off = rng.random((LUCK, len(scores))) < scores
    sums = np.zeros((LUCK, BINS))
    for index in np.unique(bins):
        mine = bins == index
        sums[:, index] = (off[:, mine] - scores[mine]).sum(axis=1)
    return float((abs(sums).sum(axis=1) / len(scores)).mean())


def _bins(scores: Array, true: Array, cluster: Array, weights: Array) -> list[Bin]:
    sums = _sums(scores, true, cluster, weights.shape[1])
    counts, said, right = (part[0] for part in sums(np.ones((1, weights.shape[1]))))
    drawn_counts, _, drawn_right = sums(weights)
    with np.errstate(invalid="ignore"):
        shares = drawn_right / drawn_counts
    found = []
    for index in np.flatnonzero(counts):
        share = float(right[index] / counts[index])
        mine = len(np.unique(cluster[bin_of(scores) == index]))
        if share in (0.0, 1.0):  # as in `statistics.estimate`
            true_here = Estimate(share, *wilson(share, mine), mine)
        else:
            true_here = _interval(share, shares[:, index], mine)
        low, high = index / BINS, (index + 1) / BINS
        mean = float(said[index] / counts[index])
        found.append(Bin(low, high, int(counts[index]), mean, true_here))
    return found
