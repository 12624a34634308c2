"""Sources of captioned images. A source has a length, and `source[i]` is (picture, caption)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

from PIL import Image

from lavi_bridge.errors import BridgeError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


class Source(Protocol):
    """What training needs of a source."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image, str]:
        """Picture and caption `index`; BadImage if the picture cannot be read."""

    def captions(self, count: int) -> list[str]:
        """The first `count` captions, without reading a picture."""


class BadImage(BridgeError):
    """A picture that is missing or damaged, with the place that names it."""


class _Rows:
    """Rows of (picture path, caption, where the row stands)."""

    rows: list[tuple[Path, str, str]]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Image.Image, str]:
        path, caption, where = self.rows[index]
        if not path.is_file():
            hint = "; is the first line a header?" if where.endswith(".tsv:1") else ""
            raise BadImage(f"{where}: no image '{path}'{hint}")
        try:
            with Image.open(path) as picture:
                return picture.convert("RGB"), caption
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise BadImage(f"{where}: cannot read '{path}': {error}") from error

    def captions(self, count: int) -> list[str]:
        return [caption for _, caption, _ in self.rows[:count]]


class TSV(_Rows):
    """The published caption file: `image path<TAB>caption` a line, paths relative to the file.

    Raises:
        BridgeError: the file is missing, is not UTF-8, or a line (named) is not of that form.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise BridgeError(f"no caption file '{path}'")
        self.rows = []
        with path.open("rb") as lines:
            for number, raw in enumerate(lines, 1):
                where = f"{path}:{number}"
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise BridgeError(f"{where}: not UTF-8 text; save the file as UTF-8") from error
                if not line.strip():
                    continue
                image, tab, caption = line.partition("\t")
                if not tab or not image.strip() or not caption.strip():
                    raise BridgeError(
                        f"{where}: expected `image path<TAB>caption`, got {line[:60]!r}"
                    )
                self.rows.append((path.parent / image.strip(), caption.strip(), where))
        if not self.rows:
            raise BridgeError(f"'{path}' holds no captions")


class Folder(_Rows):
    """A folder of images, captioned by `metadata.jsonl` or by a .txt file of the same name.

    Raises:
        BridgeError: an image has no caption, a line (named) is malformed, or there is no image.
    """

    def __init__(self, folder: Path) -> None:
        index = folder / "metadata.jsonl"
        self.rows = self._from_index(index) if index.is_file() else self._from_texts(folder)
        if not self.rows:
            raise BridgeError(f"'{folder}' holds no images ({', '.join(sorted(SUFFIXES))})")

    @staticmethod
    def _from_index(index: Path) -> list[tuple[Path, str, str]]:
        """Lines as `datasets` writes them: {"file_name": …, "text" or "caption": …}."""
        rows = []
        for number, line in enumerate(_text(index).split("\n"), 1):
            where = f"{index}:{number}"
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                name, caption = entry["file_name"], entry.get("text") or entry["caption"]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise BridgeError(f'{where}: expected {{"file_name": …, "text": …}}') from error
            rows.append((index.parent / str(name), str(caption), where))
        return rows

    @staticmethod
    def _from_texts(folder: Path) -> list[tuple[Path, str, str]]:
        rows = []
        for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
            text = path.with_suffix(".txt")
            if not text.is_file():
                raise BridgeError(f"'{path}' has no caption file '{text.name}' beside it")
            caption = _text(text).strip()
            if not caption:
                raise BridgeError(f"'{text}' is empty; give '{path.name}' a caption")
            rows.append((path, caption, str(text)))
        return rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BridgeError(f"{path}: not UTF-8 text; save the file as UTF-8") from error
