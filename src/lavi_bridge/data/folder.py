"""A folder of captioned images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lavi_bridge.data.base import SUFFIXES, Rows, read_text, texts_of
from lavi_bridge.errors import BridgeError

INDEX = "metadata.jsonl"


class Folder(Rows):
    """Images captioned by `metadata.jsonl`, or each by a .txt file of the same name.

    A line of the index is {"file_name": …, "text" or "caption" or "captions": string or list}, as
    Hugging Face's imagefolder has it.

    Raises:
        BridgeError: an image has no caption, a line (named) is malformed, or there is no image.
    """

    def __init__(self, folder: Path) -> None:
        index = folder / INDEX
        rows = _from_index(index) if index.is_file() else _from_texts(folder)
        if not rows:
            raise BridgeError(f"'{folder}' holds no images ({', '.join(sorted(SUFFIXES))})")
        super().__init__(rows)


def _from_index(index: Path) -> list[tuple[str, Sequence[str], str]]:
    rows: list[tuple[str, Sequence[str], str]] = []
    for number, line in enumerate(read_text(index).split("\n"), 1):
        where = f"{index}:{number}"
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            name = str(entry["file_name"])
            found = next(entry[key] for key in ("text", "caption", "captions") if key in entry)
        except (ValueError, KeyError, TypeError, StopIteration) as error:
            raise BridgeError(f'{where}: expected {{"file_name": …, "text": …}}') from error
        if not (texts := texts_of(found)):
            raise BridgeError(f"{where}: the caption of '{name}' is empty")
        rows.append((str(index.parent / name), texts, where))
    return rows


def _from_texts(folder: Path) -> list[tuple[str, Sequence[str], str]]:
    rows: list[tuple[str, Sequence[str], str]] = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        text = path.with_suffix(".txt")
        if not text.is_file():
            raise BridgeError(f"'{path}' has no caption file '{text.name}' beside it")
        caption = read_text(text).strip()
        if not caption:
            raise BridgeError(f"'{text}' is empty; give '{path.name}' a caption")
        rows.append((str(path), [caption], str(text)))
    return rows
