"""Curves on axes: smoothing, thinning, scales, and what is escaped."""

import time
from xml.etree import ElementTree

import numpy as np
import pytest

from lavi_bridge.show.plots import POINTS, Axis, Line, draw_plot, smoothed, thinned


def line(values: list[float], name: str = "run") -> Line:
    return Line(name, np.arange(1.0, len(values) + 1), np.array(values))


def test_a_plot_is_well_formed_and_has_its_axes() -> None:
    plot = draw_plot("loss", [line([1.0, 0.5, 0.2])], lowest=True)
    tree = ElementTree.fromstring(str(plot))
    texts = [text.text for text in tree.iter("text")]
    assert texts[-1] == "step"
    assert {"1", "2", "3", "0.5"} <= set(texts)
    assert "0.2</b> at 3" in plot
    assert "lowest 0.2 at 3" in plot


def test_smoothing_is_the_mean_around_and_keeps_what_is_constant() -> None:
    values = np.array([0.0, 0, 9, 0, 0, 0, 0, 0, 0, 0])
    assert smoothed(values, 0.3)[:5].tolist() == [0, 3, 3, 3, 0]
    assert smoothed(np.full(7, 0.1), 0.5) == pytest.approx(np.full(7, 0.1))
    assert smoothed(values, 0.0) is values


def test_a_smoothed_line_has_the_line_itself_behind_it() -> None:
    plot = draw_plot("loss", [line([1.0, 2, 1, 2, 1, 2])], over=0.5)
    assert plot.count("<polyline") == 2
    assert plot.count("lb-faint") == 1


def test_many_points_become_few_that_stand_for_all() -> None:
    steps = np.arange(100_000.0)
    few, means = thinned(steps, steps)
    assert len(few) == POINTS
    assert means.mean() == pytest.approx(steps.mean())


def test_a_logarithmic_scale_needs_values_above_zero() -> None:
    assert "(log)" in draw_plot("loss", [line([1.0, 0.1, 0.001])], log=True)
    assert "(log)" not in draw_plot("loss", [line([1.0, 0.0])], log=True)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    ("low", "high"), [(0.01, 0.09), (3, 3), (1e-9, 1e9), (0.999, 1.001), (5e-324, 1e300)]
)
def test_ticks_are_few_and_lie_on_the_axis(low: float, high: float, log: bool) -> None:
    axis = Axis.of([np.array([low, high])], 0, 100, log=log, room=0.04)
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 7
    assert all(-1e-6 <= axis.place(tick) <= 100 + 1e-6 for tick in ticks)


def test_one_point_is_a_dot_and_none_is_no_plot() -> None:
    assert "<circle" in draw_plot("loss", [line([1.0])])
    assert draw_plot("loss", [line([])]) == ""


def test_titles_and_names_are_text() -> None:
    plot = draw_plot("<script>", [line([1.0, 2], name='"><img src=x>')], across="<b>")
    assert "<script" not in plot
    assert "<img" not in plot
    assert "<b>s" not in plot


def test_100_000_points_are_drawn_at_once() -> None:
    values = np.random.default_rng(0).random(100_000)
    began = time.process_time()
    plot = draw_plot("loss", [Line("a", np.arange(100_000.0), values)], over=0.1)
    assert time.process_time() - began < 0.5
    assert len(plot) < 30_000
