"""Folders that are written whole or not at all."""

from pathlib import Path

import pytest

from lavi_bridge import BridgeError
from lavi_bridge.files.atomic import new_folder


def test_a_place_where_no_folder_can_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    said = r"^cannot write '.*out': .*(exists|Not a directory)"
    for target in (tmp_path / "file" / "out", tmp_path / "file" / "below" / "out"):
        with pytest.raises(BridgeError, match=said) as error, new_folder(target, own=()):
            pytest.fail("a folder was yielded")
        assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_error_inside_leaves_the_earlier_folder_alone(tmp_path: Path) -> None:
    def write() -> None:
        with new_folder(tmp_path / "out", own=["kept"]) as scratch:
            (scratch / "kept").write_text("half")
            raise ZeroDivisionError

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").write_text("before")
    with pytest.raises(ZeroDivisionError):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "kept").read_text() == "before"
