"""A folder remembers what it is of: noted once, compared ever after."""

import json
from pathlib import Path

import pytest

from lavi_bridge import BridgeError
from lavi_bridge.running.claims import Difference, difference, noted


def test_what_is_noted_first_stays(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    first = {"seed": 0, "sizes": (16, 24), "out": tmp_path}
    assert noted(path, first, advice="") == {"seed": 0, "sizes": [16, 24], "out": str(tmp_path)}
    assert difference(noted(path, first, advice=""), first) is None
    found = difference(noted(path, first | {"seed": 1}, advice=""), first | {"seed": 1})
    assert found == Difference("seed", 0, 1)
    assert str(found) == "seed: 0 there, 1 here"
    assert json.loads(path.read_text())["seed"] == 0


def test_settings_that_came_or_went_differ_unless_ours_alone_count() -> None:
    there, here = {"seed": 0, "old": 1}, {"seed": 0}
    assert difference(there, here) == Difference("old", 1, None)
    assert difference(there, here, ours_alone=True) is None
    assert difference(here, there) == Difference("old", None, 1)
    assert difference(here, there, apart_from=["old"]) is None


def test_a_setting_inside_another_is_named() -> None:
    there = {"budgets": {"ours": {"steps": 40, "batch": 32}, "paper": {"steps": 320}}}
    here = {"budgets": {"ours": {"steps": 50, "batch": 32}, "paper": {"steps": 320}}}
    assert str(difference(there, here)) == "budgets, ours, steps: 40 there, 50 here"
    assert str(difference({"a": {"b": None}}, {"a": {}})) == "a: {'b': None} there, {} here"


def test_a_folder_that_is_not_free_is_left_as_it_is(tmp_path: Path) -> None:
    def free() -> None:
        raise BridgeError("holds other files")

    with pytest.raises(BridgeError, match="holds other files"):
        noted(tmp_path / "about.json", {}, advice="", at_once=True, before=free)
    assert not (tmp_path / "about.json").exists()


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_a_damaged_note_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "settings.json"
    path.write_text(content)
    with pytest.raises(BridgeError, match=r"settings\.json is damaged .*; delete it"):
        noted(path, {"seed": 0}, advice="delete it")
