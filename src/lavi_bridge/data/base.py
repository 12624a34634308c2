"""What training needs of a source of captioned images, and how one file becomes a picture."""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Protocol

from PIL import Image

from lavi_bridge.errors import BridgeError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


class Source(Protocol):
    """Captioned images by number."""

    def __len__(self) -> int: ...

    def picture(self, index: int, at_least: int | None = None) -> Image.Image:
        """The picture, RGB; where `at_least` is given, a JPEG may be decoded smaller than it is,
        with neither side under that.

        Raises:
            BadImage: it is missing or damaged.
        """

    def size(self, index: int) -> tuple[int, int]:
        """Width and height in pixels, from the header alone; BadImage as above."""

    def texts(self, index: int) -> Sequence[str]:
        """Its captions, one at least."""

    def where(self, index: int) -> str:
        """The file, and line or member, that it comes from."""

    def captions(self, count: int) -> list[str]:
        """The first caption of each of the first `count` pictures, no picture being read."""

    def identity(self) -> str:
        """16 hex digits that change when rows or captions do (pixels are not read)."""


class BadImage(BridgeError):
    """A picture that is missing or damaged, with the place that names it."""


class Listed(ABC):
    """A source that knows its rows beforehand: picture, captions and place of each."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def texts(self, index: int) -> Sequence[str]: ...

    @abstractmethod
    def where(self, index: int) -> str: ...

    @abstractmethod
    def _open(self, index: int) -> tuple[Path | IO[bytes], str]:
        """What Pillow opens, and how errors name it; BadImage where there is nothing."""

    def picture(self, index: int, at_least: int | None = None) -> Image.Image:
        with _Reading(*self._open(index), where=self.where(index)) as picture:
            if at_least and picture.format == "JPEG":
                picture.draft("RGB", (at_least, at_least))  # by halves, while decoding
            return picture.convert("RGB")

    def size(self, index: int) -> tuple[int, int]:
        with _Reading(*self._open(index), where=self.where(index)) as picture:
            return picture.size

    def captions(self, count: int) -> list[str]:
        return [self.texts(index)[0] for index in range(min(count, len(self)))]

    def identity(self) -> str:
        rows = (f"{Path(self.where(i)).name} {self.texts(i)}" for i in range(len(self)))
        return digest(rows)


class Rows(Listed):
    """Pictures in files: rows of (path, captions, where the row stands)."""

    rows: list[tuple[Path, Sequence[str], str]]

    def __len__(self) -> int:
        return len(self.rows)

    def texts(self, index: int) -> Sequence[str]:
        return self.rows[index][1]

    def where(self, index: int) -> str:
        return self.rows[index][2]

    def _open(self, index: int) -> tuple[Path | IO[bytes], str]:
        path, _, where = self.rows[index]
        if not path.is_file():
            hint = "; is the first line a header?" if where.endswith(".tsv:1") else ""
            raise BadImage(f"{where}: no image '{path}'{hint}")
        if not path.stat().st_size:
            raise BadImage(f"{where}: '{path}' is empty (0 bytes)")
        return path, str(path)


class _Reading:
    """An open picture, whose every way to be unreadable is a BadImage."""

    def __init__(self, file: Path | IO[bytes], name: str, *, where: str) -> None:
        self.file, self.name, self.place = file, name, where

    def __enter__(self) -> Image.Image:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                self.picture = Image.open(self.file)
        except Exception as error:
            raise self._bad(error) from error
        return self.picture

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.picture.close()
        if isinstance(error, Exception):
            raise self._bad(error) from error

    def _bad(self, error: Exception) -> BadImage:
        # Pillow's decoders raise whatever their format's arithmetic does; all of it means this
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
            reason = f"it is too large ({reason.partition(',')[0].lower()})"
        return BadImage(f"{self.place}: cannot read '{self.name}': {reason}")


def digest(parts: Iterable[object]) -> str:
    """16 hex digits of a sequence."""
    found = hashlib.sha256()
    for part in parts:
        found.update(str(part).encode("utf-8", "surrogatepass") + b"\n")
    return found.hexdigest()[:16]


def read_text(path: Path) -> str:
    """Text of a UTF-8 file, with or without a byte-order mark; BridgeError names any other."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BridgeError(f"{path}: not UTF-8 text; save the file as UTF-8") from error


def texts_of(value: object) -> list[str]:
    """Captions out of a JSON or column value: a string, or a list of them; none if neither."""
    found = value if isinstance(value, list | tuple) else [value]
    return [text.strip() for text in found if isinstance(text, str) and text.strip()]
