"""Statistics of a judge's probabilities: by hand, by straight loops, and by simulation."""

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from lavi_bridge import BridgeError
from lavi_bridge.evaluate.judges.calibration import Answers, Measures, auc, bin_of, measures
from lavi_bridge.evaluate.statistics import wilson


def of(
    scores: list[float],
    true: list[int],
    clusters: list[str] | None = None,
    texts: list[str] | None = None,
) -> Measures:
    names = [str(n) for n in range(len(scores))]
    return measures(
        Answers(
            np.array(scores, dtype=float),
            np.array(true, dtype=bool),
            clusters or names,
            ["all"] * len(scores),
            texts or names,
        )
    )


def test_by_hand() -> None:
    """Six answers in four bins:

    0.1 false, 0.1 true, | 0.45 false, | 0.65 true, 0.65 false, | 1.0 true
    """
    found = of([0.1, 0.1, 0.45, 0.65, 0.65, 1.0], [0, 1, 0, 1, 0, 1])
    assert found.accuracy.value == pytest.approx(4 / 6)
    squared = [0.01, 0.81, 0.2025, 0.1225, 0.4225, 0.0]
    assert found.brier.value == pytest.approx(sum(squared) / 6)
    # |0.2 - 1| + |0.45 - 0| + |1.3 - 1| + |1 - 1|
    assert found.ece.value == pytest.approx((0.8 + 0.45 + 0.3) / 6)
    assert [(b.low, b.count, b.said, b.true.value) for b in found.bins] == [
        (0.1, 2, pytest.approx(0.1), 0.5),
        (0.4, 1, pytest.approx(0.45), 0.0),
        (0.6, 2, pytest.approx(0.65), 0.5),
        (0.9, 1, pytest.approx(1.0), 1.0),
    ]
    # of 9 comparisons of a true with a false one: 0.1 ties once; 0.65 wins twice and ties once;
    # 1.0 wins thrice
    assert found.auc is not None
    assert found.auc.value == pytest.approx((0.5 + 2.5 + 3) / 9)


def test_the_area_is_mann_and_whitneys() -> None:
    rng = np.random.default_rng(0)
    scores, true = rng.integers(0, 20, 200) / 20, rng.random(200) < 0.4
    expected = mannwhitneyu(scores[true], scores[~true]).statistic / (true.sum() * (~true).sum())
    assert auc(scores, true, np.ones((1, 200))) == pytest.approx([expected])


def test_a_weight_is_a_repetition() -> None:
    rng = np.random.default_rng(1)
    scores, true = rng.integers(0, 9, 30) / 9, rng.random(30) < 0.5
    weights = rng.integers(0, 4, (5, 30))
    repeated = [
        auc(np.repeat(scores, row), np.repeat(true, row), np.ones((1, row.sum())))[0]
        for row in weights
    ]
    assert auc(scores, true, weights.astype(float)) == pytest.approx(repeated)


def test_bins_are_tenths_and_one_is_in_the_last() -> None:
    assert bin_of(np.array([0.0, 0.0999, 0.1, 0.95, 1.0])).tolist() == [0, 0, 1, 9, 9]


def test_all_right_and_all_wrong() -> None:
    right, wrong = of([1, 1, 0, 0], [1, 1, 0, 0]), of([1, 1, 0, 0], [0, 0, 1, 1])
    assert (right.accuracy.value, right.ece.value, right.brier.value) == (1, 0, 0)
    assert (wrong.accuracy.value, wrong.ece.value, wrong.brier.value) == (0, 1, 1)
    assert right.auc is not None
    assert wrong.auc is not None
    assert (right.auc.value, wrong.auc.value) == (1, 0)
    assert (right.accuracy.low, right.accuracy.high) == wilson(1.0, 4)  # there is a width
    assert (right.bins[-1].true.low, right.bins[-1].true.high) == wilson(1.0, 2)


def test_a_half_is_read_as_no() -> None:
    assert of([0.5, 0.5], [0, 0]).accuracy.value == 1.0


def test_without_something_false_there_is_no_area() -> None:
    found = of([0.3, 0.9], [1, 1])
    assert (found.auc, found.ranked) == (None, None)


def test_ranked_are_the_pictures_of_one_text() -> None:
    """The first text's right picture scores more, the second's as much, the third's less."""
    found = of(
        [0.3, 0.2, 0.9, 0.9, 0.1, 0.8],
        [1, 0, 1, 0, 1, 0],
        clusters=["a", "a", "b", "b", "c", "c"],
        texts=["x", "x", "y", "y", "z", "z"],
    )
    assert found.ranked is not None
    assert found.ranked.value == pytest.approx((1 + 0.5 + 0) / 3)
    assert found.pairs == found.ranked.count == 3


def test_answers_about_one_pair_count_as_one() -> None:
    """Four times the same answer is no more evidence than one: the interval stays as wide."""
    scores, true = [0.9, 0.8, 0.2, 0.7] * 5, [1, 0, 0, 1] * 5
    once = of(scores, true)
    names = [str(n) for n in range(20)]
    again = of(scores * 4, true * 4, clusters=names * 4)
    assert (once.pairs, again.pairs, again.questions) == (20, 20, 80)
    for a, b in ((once.accuracy, again.accuracy), (once.auc, again.auc), (once.ece, again.ece)):
        assert a is not None
        assert b is not None
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high))


def test_luck_is_what_a_calibrated_judge_has() -> None:
    """Of n answers of ½ in one bin: the mean of |k/n - ½|, k binomial."""
    n = 40
    expected = sum(math.comb(n, k) / 2**n * abs(k / n - 0.5) for k in range(n + 1))
    assert of([0.5] * n, [0, 1] * (n // 2)).lucky == pytest.approx(expected, rel=0.1)


def test_intervals_hold_chance_as_often_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judges that know nothing, with habits: they like some pairs, texts and pictures better."""
    monkeypatch.setattr("lavi_bridge.evaluate.judges.calibration.DRAWS", 300)
    rng, inside, runs, pairs = np.random.default_rng(0), np.zeros(3), 120, 16
    for _ in range(runs):
        liked = rng.normal(size=(pairs, 1, 1)) + rng.normal(size=(pairs, 2, 1)) / 2
        liked = liked + rng.normal(size=(pairs, 1, 2)) / 2 + rng.normal(size=(pairs, 2, 2)) / 2
        found = of(
            (1 / (1 + np.exp(-liked))).ravel().tolist(),
            [1, 0, 0, 1] * pairs,
            clusters=[str(n // 4) for n in range(4 * pairs)],
            texts=[str(n // 2) for n in range(4 * pairs)],
        )
        for place, e in enumerate((found.accuracy, found.auc, found.ranked)):
            assert e is not None
            assert e.low is not None
            assert e.high is not None
            inside[place] += e.low <= 0.5 <= e.high
    assert all(0.88 <= share <= 1 for share in inside / runs), inside / runs


def test_no_answers() -> None:
    with pytest.raises(BridgeError, match="no answers to sum up"):
        of([], [])
