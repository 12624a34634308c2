"""Intervals and tests over prompts, against closed forms and cases worked out by hand."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from lavi_bridge import BridgeError
from lavi_bridge.evaluate.statistics import (
    Estimate,
    estimate,
    over_runs,
    paired,
    paired_runs,
    student,
    wilson,
)

Scores = list[list[float | None]]


def column(*values: float | None) -> Scores:
    """One image a prompt."""
    return [[value] for value in values]


def alike(count: int) -> list[str]:
    return [""] * count


# ---- estimate


def test_a_prompt_counts_once_however_many_images_it_has() -> None:
    found = estimate([[1.0, 0.0, 0.0, 0.0], [0.5], [None, 0.75]], alike(3))
    assert found.value == pytest.approx((0.25 + 0.5 + 0.75) / 3)
    assert found.count == 3


def test_prompts_without_a_score_do_not_count() -> None:
    scores: Scores = [[0.25], [None, None], [0.75], []]
    with_none, without = estimate(scores, alike(4)), estimate(column(0.25, 0.75), alike(2))
    assert with_none == without
    assert with_none.count == 2


def test_the_interval_of_a_fraction_is_the_normal_one_for_many_prompts() -> None:
    n, right = 2000, 600
    found = estimate(column(*[1.0] * right, *[0.0] * (n - right)), alike(n))
    half = 1.959964 * math.sqrt(0.3 * 0.7 / n)
    assert (found.low, found.high) == pytest.approx((0.3 - half, 0.3 + half), abs=1e-3)
    narrower = estimate(column(*[1.0] * right, *[0.0] * (n - right)), alike(n), level=0.5)
    assert narrower.high == pytest.approx(0.3 + half * 0.67449 / 1.959964, abs=1e-3)


def test_redrawing_within_categories_leaves_out_how_they_differ() -> None:
    # two categories, each of a small spread, far apart: sd within is 0.1
    values = column(*[0.1, 0.3] * 100, *[0.7, 0.9] * 100)
    apart = estimate(values, ["easy"] * 200 + ["hard"] * 200)
    mixed = estimate(values, alike(400))
    assert apart.value == mixed.value == pytest.approx(0.5)
    assert apart.high == pytest.approx(0.5 + 1.96 * 0.1 / 20, abs=1e-3)
    assert mixed.high == pytest.approx(0.5 + 1.96 * math.sqrt(0.1) / 20, abs=2e-3)


def test_all_0_or_all_1_has_the_wilson_interval() -> None:
    assert estimate(column(*[1.0] * 10), alike(10)) == Estimate(1.0, *wilson(1.0, 10), 10)
    nothing = estimate(column(*[0.0] * 10), alike(10))
    assert nothing.low == pytest.approx(0)
    assert nothing.high == pytest.approx(1.959964**2 / (10 + 1.959964**2))
    split = estimate(column(*[0.0] * 10, *[1.0] * 10), ["hard"] * 10 + ["easy"] * 10)
    assert split == Estimate(0.5, *wilson(0.5, 20), 20)


def test_a_single_prompt_has_no_interval_and_lone_prompts_are_redrawn_together() -> None:
    assert estimate([[0.25, 0.75]], [""]) == Estimate(0.5, None, None, 1)
    lone = estimate(column(0.2, 0.3, 0.4), ["a", "b", "c"])
    assert lone == estimate(column(0.2, 0.3, 0.4), alike(3))
    assert lone.low == pytest.approx(0.2)


def test_95_of_100_intervals_hold_the_true_mean() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        difficulty = rng.beta(2, 2, size=60)  # of each prompt; the mean is 1/2
        images = rng.random((60, 4)) < difficulty[:, None]
        found = estimate(images.astype(float).tolist(), alike(60), draws=500)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.5 <= found.high
    assert 0.92 < held / 400 < 0.98


def test_a_seed_gives_the_same_interval_again() -> None:
    values = column(*np.random.default_rng(1).random(50).tolist())
    assert estimate(values, alike(50)) == estimate(values, alike(50))
    assert estimate(values, alike(50)) != estimate(values, alike(50), seed=1)


def test_5000_prompts_take_about_a_second() -> None:
    values = column(*np.random.default_rng(1).random(5000).tolist())
    start = time.perf_counter()
    estimate(values, alike(5000))
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("values", "message"),
    [([], "no prompt has one"), ([[None], []], "no prompt has one"), ([[0.5], [math.nan]], "nan")],
)
def test_what_cannot_be_summed_up_is_said(values: Scores, message: str) -> None:
    with pytest.raises(BridgeError, match=message):
        estimate(values, alike(len(values)))


# ---- paired


def test_four_prompts_by_hand() -> None:
    # differences 3, 2, 1, -1, sum 5: of the 16 flips, |sum| >= 5 for
    #   +3+2+1-1 = 5, +3+2-1+1 = 5, +3+2+1+1 = 7 and their negatives: 6 / 16
    found = paired(column(4, 3, 2, 1), column(1, 1, 1, 2), alike(4))
    assert found.difference == 1.25
    assert found.p == 6 / 16
    assert (found.wins, found.losses, found.ties, found.count) == (3, 1, 0, 4)


def test_ties_change_the_mean_and_not_the_p_value() -> None:
    found = paired(column(4, 3, 2, 1, 5, 5), column(1, 1, 1, 2, 5, 5), alike(6))
    assert found.difference == pytest.approx(5 / 6)
    assert found.p == 6 / 16
    assert found.ties == 2


def test_the_same_twice_is_no_difference() -> None:
    found = paired(column(0.1, 0.2), column(0.1, 0.2), alike(2))
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_rounding_does_not_break_ties_between_flips() -> None:
    # 0.1 + 0.2 is not 0.3 in floats; by hand: 0.1+0.2-0.3 = 0, so every flip reaches it
    assert paired(column(0.1, 0.2, 0.0), column(0, 0, 0.3), alike(3)).p == 1


def test_images_are_paired_by_seed() -> None:
    # the second image of prompt 0 is missing in b, so its first alone counts
    found = paired([[0.5, 1.0], [0.5, 0.7]], [[0.25, None], [0.5, 0.5]], alike(2))
    assert found.difference == pytest.approx((0.25 + 0.1) / 2)
    assert found.count == 2
    one = paired([[0.5], [None]], [[0.25], [1.0]], alike(2))
    assert (one.difference, one.low, one.p, one.count) == (0.25, None, 1, 1)


def test_beyond_12_prompts_drawn_flips_agree_with_all_flips() -> None:
    rng = np.random.default_rng(5)
    d = rng.normal(0.4, 1, 13)
    flips = np.arange(2**13)[:, None] >> np.arange(13) & 1
    exact = (abs((1 - 2 * flips) @ d) >= abs(d.sum()) - 1e-12).mean()
    found = paired(column(*d.tolist()), column(*[0.0] * 13), alike(13))
    assert found.p == pytest.approx(exact, abs=3 * math.sqrt(exact * (1 - exact) / 10_000))


def test_p_is_never_0_and_repeats_with_its_seed() -> None:
    a, b = column(*[1.0] * 100), column(*[0.0] * 100)
    found = paired(a, b, alike(100))
    assert found.p == 1 / 10_001
    assert found == paired(a, b, alike(100))
    assert paired(b, a, alike(100)).difference == -1


def test_p_of_entries_that_are_alike_is_spread_evenly() -> None:
    rng = np.random.default_rng(3)
    small = 0
    for _ in range(300):
        a, b = rng.random((2, 30)).tolist()
        small += paired(column(*a), column(*b), alike(30), draws=400).p <= 0.1
    assert 0.05 < small / 300 < 0.15


def test_other_numbers_of_images_cannot_be_paired() -> None:
    with pytest.raises(BridgeError, match="prompt 1 has 2 images in one entry and 1 in the other"):
        paired([[1.0], [1.0, 0.5]], [[1.0], [0.5]], alike(2))
    with pytest.raises(BridgeError, match="no prompt has one"):
        paired(column(None, 1.0), column(1.0, None), alike(2))


# ---- training runs


def runs(*rates: float, prompts: int = 200, seed: int = 0) -> np.ndarray:
    """Right or wrong (runs, prompts), each run at a rate of its own."""
    rng = np.random.default_rng(seed)
    return (rng.random((len(rates), prompts)) < np.array(rates)[:, None]).astype(float)


def test_students_quantiles_are_the_tables() -> None:
    known = {1: 12.706, 2: 4.303, 3: 3.182, 9: 2.262, 30: 2.042, 1000: 1.962}
    assert {f: round(student(f), 3) for f in known} == known
    assert student(2, 0.99) == pytest.approx(9.925, abs=1e-3)


def test_one_run_is_about_prompts_alone() -> None:
    values = runs(0.4)
    known = estimate([[float(x)] for x in values[0]], alike(200))
    found = over_runs(values, alike(200))
    assert found.value == pytest.approx(known.value)
    assert found.low == pytest.approx(known.low, abs=0.01)
    assert found.high == pytest.approx(known.high, abs=0.01)


def test_runs_that_differ_alone_have_students_interval() -> None:
    values = np.array([[0.2], [0.5], [0.8]]).repeat(10, 1)
    found = over_runs(values, alike(10))
    half = 4.3027 * 0.3 / math.sqrt(3)
    assert (found.low, found.high) == (0.0, 1.0)  # 0.5 ± 0.75, within 0 and 1
    shifted = over_runs(values + 2, alike(10))
    assert (shifted.low, shifted.high) == pytest.approx((2.5 - half, 2.5 + half), abs=1e-3)


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.3])
def test_the_interval_covers_the_truth_over_new_runs_and_prompts(spread: float) -> None:
    covered, rng = 0, np.random.default_rng(1)
    for _ in range(200):
        rates = 0.5 + spread * rng.standard_normal(3)
        values = rates[:, None] + 0.5 * rng.standard_normal((3, 200))
        found = over_runs(values, alike(200))
        covered += (found.low or -9) <= 0.5 <= (found.high or 9)
    assert covered >= 0.92 * 200


def test_all_right_in_every_run_is_wilsons_interval() -> None:
    found = over_runs(np.ones((3, 20)), alike(20))
    assert (found.low, found.high) == pytest.approx(wilson(1.0, 20))


def test_paired_runs_follow_the_sign_and_cancel_what_is_common() -> None:
    a = runs(0.5, 0.6, 0.4)
    better = np.maximum(a, runs(0.2, 0.2, 0.2, seed=9))
    found = paired_runs(better, a, alike(200))
    assert found.difference == pytest.approx((better - a).mean())
    assert (found.low or 0) > 0
    assert found.p < 0.01
    assert found.losses == 0
    back = paired_runs(a, better, alike(200))
    assert back.difference == -found.difference
    assert (back.low, back.high) == pytest.approx((-(found.high or 0), -(found.low or 0)), abs=0.01)


def test_what_was_not_trained_stands_for_every_run() -> None:
    a, alone = runs(0.5, 0.6, 0.4), runs(0.3, seed=3)
    assert paired_runs(a, alone, alike(200)) == paired_runs(a, alone.repeat(3, 0), alike(200))
    with pytest.raises(BridgeError, match="3 runs cannot be paired with 2"):
        paired_runs(a, a[:2], alike(200))
    with pytest.raises(BridgeError, match="not finite"):
        over_runs(a * math.nan, alike(200))
