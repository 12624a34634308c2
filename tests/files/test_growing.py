"""A file of JSON lines that grows while it is read."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lavi_bridge.files.growing import Growing, last_rows, read_object, stamp


def read(growing: Growing) -> tuple[bool, list[dict[str, Any]]]:
    """Whether it began anew, and the new rows."""
    batches = list(growing.more())
    return None in batches, [row for batch in batches if batch is not None for row in batch]


def test_only_what_is_new_is_read_and_a_half_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": 2')
    growing = Growing(path, tmp_path)
    assert read(growing) == (False, [{"a": 1}])
    assert read(growing) == (False, [])
    with path.open("a") as file:
        file.write('}\n{"a": 3}\n')
    assert read(growing) == (False, [{"a": 2}, {"a": 3}])
    assert not growing.trouble


def test_a_file_that_is_replaced_or_gone_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    growing = Growing(path, tmp_path)
    read(growing)
    other = tmp_path / "other"
    other.write_text('{"a": 9}\n')
    other.replace(path)
    assert read(growing) == (True, [{"a": 9}])
    path.unlink()
    path.write_text('{"a": 8}\n{"a": 8}\n')  # perhaps under the number that the other had
    assert read(growing) == (True, [{"a": 8}, {"a": 8}])
    path.unlink()
    assert read(growing) == (True, [])


def test_bad_lines_are_passed_over_and_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\nno\n[1]\n\n{"b": \xff}\n{"a": 2}\n' + b"[" * 100_000 + b"\n")
    growing = Growing(path, tmp_path)
    assert read(growing)[1] == [{"a": 1}, {"a": 2}]
    assert growing.trouble == "rows.jsonl: line 2 and 3 more cannot be read as JSON"


def test_a_line_without_an_end_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lavi_bridge.files.growing.CHUNK", 64)
    monkeypatch.setattr("lavi_bridge.files.growing.MOST_LINE", 256)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n' + "x" * 5000 + '\n{"a": 2}\n')
    growing = Growing(path, tmp_path)
    assert read(growing)[1] == [{"a": 1}, {"a": 2}]
    assert growing.trouble == "rows.jsonl: line 2 cannot be read as JSON"


def test_the_last_rows_are_read_without_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lavi_bridge.files.growing.TAIL", 100)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"step": n}) + "\n" for n in range(1000)) + '{"step": 10')
    rows = list(last_rows(path, tmp_path))
    assert rows[0] == {"step": 999}
    assert len(rows) < 10


def test_nothing_outside_is_read_and_nothing_but_files(tmp_path: Path) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret.json"
    root.mkdir()
    secret.write_text('{"a": 1}\n')
    (root / "linked").symlink_to(secret)
    (root / "circle").symlink_to(root / "circle")
    os.mkfifo(root / "pipe")
    for name in ("linked", "circle", "pipe", "../secret.json", "none"):
        assert stamp(root / name, root.resolve()) is None
        assert read(Growing(root / name, root.resolve())) == (False, [])
        assert not list(last_rows(root / name, root.resolve()))
        with pytest.raises(FileNotFoundError):
            read_object(root / name, root.resolve())


def test_a_link_that_stays_inside_is_read(tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text('{"a": 1}')
    (tmp_path / "linked").symlink_to("there.json")
    assert read_object(tmp_path / "linked", tmp_path.resolve()) == {"a": 1}
