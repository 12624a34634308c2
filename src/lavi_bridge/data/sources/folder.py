"""A folder of captioned images."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lavi_bridge.data.sources.base import Rows, read_text, texts_of
from lavi_bridge.data.sources.finding import OTHER, SUFFIXES, LeftOut, is_picture, walk
from lavi_bridge.errors import BridgeError

INDEX = "metadata.jsonl"
INDEXES = (INDEX, "metadata.csv")
"""Tables of captions as Hugging Face's imagefolder has them, the preferred first."""
CAPTIONS = ("text", "caption", "captions")
Row = tuple[str, Sequence[str], str]


class Folder(Rows):
    """Images captioned by `metadata.jsonl`, or each by a .txt file of the same name.

    A line of the index is {"file_name": …, "text" or "caption" or "captions": string or list}, as
    Hugging Face's imagefolder has it; `metadata.csv` has columns of these names. An image without
    .txt file is looked for in the indexes of all folders, where names are relative to the index.

    Raises:
        BridgeError: an image has no caption, a line (named) is malformed, or there is no image.
    """

    def __init__(self, folder: Path) -> None:
        index = folder / INDEX
        rows = _from_index(index) if index.is_file() else _from_texts(folder)
        self._folder = folder
        if not rows:
            left = "; left out are ".join(["", *_left_out(folder, set(), set()).lines()])
            raise BridgeError(f"'{folder}' holds no images ({', '.join(sorted(SUFFIXES))}){left}")
        if not any(texts for _, texts, _ in rows):
            path, _, where = rows[0]
            raise BridgeError(f"{where}: the caption of '{Path(path).name}' is empty")
        super().__init__(rows)

    def left_out(self) -> list[str]:
        """Pictures, captions and indexes in the folder that are in no row."""
        count = range(len(self))
        used = {os.path.normpath(self.path(index)) for index in count}
        read = {self.where(index).rpartition(":")[0] for index in count}
        return _left_out(self._folder, used, read).lines()


def _left_out(folder: Path, used: set[str], read: set[str]) -> LeftOut:
    left = LeftOut()
    stems = {path.rpartition(".")[0] for path in used}
    for path in walk(folder, left):
        name, suffix = path.relative_to(folder), path.suffix.lower()
        if suffix == ".txt" and os.path.normpath(path)[: -len(suffix)] not in stems:
            left.add("text files without a picture that can be read", name)
        elif path.name in INDEXES and str(path) not in read:
            left.add("indexes that are not read", name)
        elif is_picture(suffix) and os.path.normpath(path) not in used:
            left.add("pictures without a caption", name)
        elif suffix in OTHER:
            left.add("files of another kind", name)
    return left


def _from_index(index: Path) -> list[Row]:
    rows: list[Row] = []
    for where, entry in _entries(index):
        try:
            name, found = entry["file_name"], [entry[key] for key in CAPTIONS if key in entry]
        except (KeyError, TypeError) as error:
            raise BridgeError(f"{where}: {_expected(index)}") from error
        if not name or not found:
            raise BridgeError(f"{where}: {_expected(index)}")
        texts: list[str] = next(filter(None, map(texts_of, found)), [])
        rows.append((str(index.parent / str(name)), texts, where))
    return rows


def _entries(index: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """Where each line of an index is, and what it says."""
    text = read_text(index)
    if index.suffix == ".csv":
        lines = text.split("\n")
        commas = max(",;\t", key=lines[0].count)  # spreadsheets of some countries write ;
        table = csv.DictReader((f"{line}\n" for line in lines), delimiter=commas)
        try:
            yield from ((f"{index}:{table.line_num}", dict(row)) for row in table)
        except csv.Error as error:
            raise BridgeError(f"{index}:{table.line_num}: {error}") from error
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield f"{index}:{number}", json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BridgeError(f"{index}:{number}: {_expected(index)}") from error


def _expected(index: Path) -> str:
    if index.suffix == ".csv":
        return f"expected columns `file_name` and one of {', '.join(CAPTIONS)}"
    return 'expected {"file_name": …, "text": …}'


def _from_texts(folder: Path) -> list[Row]:
    pictures, others, indexes = [], [], []
    for path in walk(folder):
        suffix = path.suffix.lower()
        if suffix in SUFFIXES:
            pictures.append(path)
        elif path.name in INDEXES:
            indexes.append(path)
        elif is_picture(suffix) and path.with_suffix(".txt").is_file():
            others.append(path)
    if others:  # such as .gif, but not the .psd that a .png comes from
        stems = {path.with_suffix("") for path in pictures}
        pictures += [path for path in others if path.with_suffix("") not in stems]
    pictures.sort()
    if pictures and all(path.with_suffix(".txt").is_file() for path in pictures):
        return [_captioned(path) for path in pictures]
    named = _named(indexes)
    rows: list[Row] = []
    for path in pictures:
        if path.with_suffix(".txt").is_file():
            rows.append(_captioned(path))
            named.pop(os.path.normpath(path), None)  # its own caption goes before an index's
        elif found := named.pop(os.path.normpath(path), None):
            rows += found
        else:
            raise BridgeError(
                f"'{path}' has no caption file '{path.stem}.txt' beside it, and no line in an "
                f"index ({' or '.join(INDEXES)})"
            )
    return rows + [row for found in named.values() for row in found]


def _captioned(path: Path) -> Row:
    text = path.with_suffix(".txt")
    caption = read_text(text).strip()
    if not caption:
        raise BridgeError(f"'{text}' is empty; give '{path.name}' a caption")
    return str(path), [caption], str(text)


def _named(indexes: Iterable[Path]) -> dict[str, list[Row]]:
    """The rows of indexes by picture; of a folder's two the preferred one is read."""
    first: dict[Path, Path] = {}
    for index in sorted(indexes, key=lambda path: INDEXES.index(path.name)):
        first.setdefault(index.parent, index)
    named: dict[str, list[Row]] = {}
    for row in (row for index in sorted(first.values()) for row in _from_index(index)):
        path = row[0] if os.path.exists(row[0]) else row[0].replace("\\", "/")  # noqa: PTH110
        named.setdefault(os.path.normpath(path), []).append(row)
    return named
