"""The demo in small: every stage runs, and what it leaves behind has its shape."""

import contextlib
import io
import itertools
import json
import re
from pathlib import Path

import pytest

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.shapes.world import CATEGORIES
from lavi_bridge.zoo import demo


@pytest.fixture(scope="module")
def out(few: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    settings, demo.SAMPLING["steps"] = demo.SAMPLING["steps"], 2
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            demo.run(folder, prompts=6, scale=0.005)
    finally:
        demo.SAMPLING["steps"] = settings
    (folder / "told.txt").write_text(told.getvalue(), encoding="utf-8")
    return folder


def test_every_bar_tells_how_much_is_left_in_all(out: Path) -> None:
    lines = re.split(r"[\r\n]+", (out / "told.txt").read_text(encoding="utf-8"))
    names = [name for name, _ in demo.bars(6, 0.005)]
    ends = [line for line in lines if "100%" in line and line.startswith(tuple(names))]
    told = [name for name, _ in itertools.groupby(line.rpartition(": ")[0] for line in ends)]
    assert told == names
    assert all(re.search(r"\] \d\d:\d\d left in all", line) for line in ends)
    assert "] 00:00 left in all" in ends[-1]


def test_scores_json_has_the_documented_shape(out: Path) -> None:
    scores = json.loads((out / "scores.json").read_text())
    assert list(scores) == ["machine", "seconds", "prompts", "rows"]
    assert scores["prompts"] == 6
    names = [row["name"] for row in scores["rows"]]
    assert names == [
        "own encoder",
        "T5, untrained",
        "T5 bridge",
        "Llama, untrained",
        "Llama bridge",
    ]
    for row in scores["rows"]:
        assert list(row) == ["name", "language", "vision", "step", "exact", "interval"]
        assert set(row["exact"]) == set(row["interval"]) == {"all", *CATEGORIES}
        for name, (low, high) in row["interval"].items():
            assert 0 <= low <= row["exact"][name] <= high <= 1


def test_the_page_stands_alone_and_the_grid_is_a_picture(out: Path) -> None:
    from PIL import Image

    page = (out / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 6 * 5
    assert page.count("<polyline") == 4
    assert "http" not in page.replace("https://arxiv.org", "")
    with Image.open(out / "grid.png") as grid:
        assert grid.width > 700


def test_the_trained_bridges_load(out: Path) -> None:
    assert Bridge.load(out / "t5").training_summary["warm_start"] == 3  # 600 steps at that scale
    assert Bridge.load(out / "llama").tokens == 32


def test_the_demo_replaces_its_own_runs_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "t5").mkdir()
    (tmp_path / "t5" / "notes.txt").write_text("mine")
    with pytest.raises(BridgeError, match="holds no earlier demo"):
        demo.fresh(tmp_path / "t5")
    (tmp_path / "t5" / "metrics.jsonl").write_text("")
    assert not demo.fresh(tmp_path / "t5").exists()


# ---- its scores


def test_a_category_has_the_wilson_interval() -> None:
    found = demo.fractions([True] * 10, ["color"] * 10)["color"]
    # 10 of 10: the published lower limit is n / (n + z²)
    assert found.low == pytest.approx(10 / (10 + 1.959964**2))
    assert found.high == pytest.approx(1.0)


def test_all_has_an_interval_over_prompts_within_their_category() -> None:
    found = demo.fractions([True, False, False, False] * 24, ["color", "shape"] * 48)
    assert list(found) == ["all", "color", "shape"]
    assert (found["color"].value, found["shape"].value) == (0.5, 0.0)
    low, value, high = found["all"].low, found["all"].value, found["all"].high
    assert value == 0.25
    assert low is not None
    assert high is not None
    assert 0.1 < low < 0.25 < high < 0.4


def test_categories_at_0_and_1_still_leave_the_whole_in_doubt() -> None:
    found = demo.fractions([True] * 50 + [False] * 50, ["color"] * 50 + ["shape"] * 50)["all"]
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.45
    assert found.high > 0.55
