"""What training needs of a source of captioned images, and how one file becomes a picture."""

from __future__ import annotations

import hashlib
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from PIL import Image, PngImagePlugin

from lavi_bridge.data.pixels import ORIGINAL, as_shown, shown_size
from lavi_bridge.errors import BridgeError, first_line
from lavi_bridge.show.output import whole


class Source(Protocol):
    """Captioned images by number.

    A source may also have `left_out()`: lines that say what of the data is in none of its samples;
    and `plain_captions(count)`, where its captions are told as people talk: the same ones plainly.
    """

    def __len__(self) -> int: ...

    def picture(self, index: int, at_least: int | None = None) -> Image.Image:
        """The picture as viewers show it, RGB; where `at_least` is given, a JPEG may be decoded
        smaller than it is, with neither side under that.

        Raises:
            BadImage: it is missing or damaged, or has no caption.
        """

    def size(self, index: int) -> tuple[int, int]:
        """Width and height in pixels, from the header alone; BadImage as above."""

    def texts(self, index: int) -> Sequence[str]:
        """Its captions, one at least; "" alone where it has none."""

    def where(self, index: int) -> str:
        """The file, and line or member, that it comes from."""

    def captions(self, count: int) -> list[str]:
        """The first caption of each of the first `count` pictures, no picture being read."""

    def identity(self) -> str:
        """16 hex digits that change when rows or captions do (pixels are not read)."""


def plain_captions(source: Source, count: int) -> list[str]:
    """The first captions as an image model's own encoder reads them, as far as a source can."""
    plainly = getattr(source, "plain_captions", source.captions)
    found: list[str] = plainly(count)
    return found


class BadImage(BridgeError):
    """A picture that is missing or damaged, with the place that names it."""

    def __init__(self, message: str) -> None:
        super().__init__(whole(message))  # a file's name may be no UTF-8


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
        with self._reading(index) as picture:
            if not at_least or picture.format != "JPEG":
                return as_shown(picture)
            original = shown_size(picture)
            picture.draft("RGB", (at_least, at_least))  # by halves, while decoding
            shown = as_shown(picture)
            shown.info[ORIGINAL] = original
            return shown

    def size(self, index: int) -> tuple[int, int]:
        with self._reading(index) as picture:
            return shown_size(picture)

    def _reading(self, index: int) -> _Reading:
        if not self.texts(index)[0]:
            raise BadImage(f"{self.where(index)}: no caption")
        return _Reading(*self._open(index), where=self.where(index))

    def captions(self, count: int) -> list[str]:
        given = (self.texts(index)[0] for index in range(len(self)))
        return list(islice(filter(None, given), count))

    def identity(self) -> str:
        return self._identity

    @cached_property
    def _identity(self) -> str:
        # not the folders, as data may move
        return digest(
            f"{self.where(i).rpartition('/')[2]} {self.texts(i)}" for i in range(len(self))
        )


class Rows(Listed):
    """Pictures in files: rows of (path, captions, where the row stands)."""

    def __init__(self, rows: Sequence[tuple[str, Sequence[str], str]]) -> None:
        self._paths = Strings(path for path, _, _ in rows)
        self._captions = Captions(texts for _, texts, _ in rows)
        self._places = Strings(where for _, _, where in rows)

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, index: int) -> Path:
        """The file of a picture."""
        path = Path(name := self._paths[index])
        if "\\" in name and not os.path.exists(name):  # noqa: PTH110 - any name; as Windows writes it
            return Path(name.replace("\\", "/"))
        return path

    def texts(self, index: int) -> Sequence[str]:
        return self._captions[index]

    def where(self, index: int) -> str:
        return self._places[index]

    def _open(self, index: int) -> tuple[Path | IO[bytes], str]:
        path, where = Path(self._paths[index]), self.where(index)
        try:
            path = self.path(index)
            found, size = path.is_file(), path.stat().st_size if path.is_file() else 0
        except OSError as error:  # a name that is too long, or a folder that may not be read
            raise BadImage(f"{where}: no image '{str(path)[:60]}…': {error.strerror}") from error
        if not found:
            hint = "; is the first line a header?" if where.endswith(".tsv:1") else ""
            raise BadImage(f"{where}: no image '{path}'{hint}")
        if not size:
            raise BadImage(f"{where}: '{path}' is empty (0 bytes)")
        return path, str(path)


class Strings:
    """Many strings in one block of bytes: a million cost what their letters do, and the processes
    that read images share them instead of copying each as they touch it."""

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [string.encode("utf-8", "surrogatepass") for string in strings]
        self._ends = np.cumsum([len(item) for item in encoded], dtype=np.int64)
        self._bytes = b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self._ends):
            raise IndexError(f"row {index} of {len(self._ends)}")
        start = self._ends[index - 1] if index else 0
        return self._bytes[start : self._ends[index]].decode("utf-8", "surrogatepass")


class Captions:
    """The captions of every picture, one or several each, in one block of bytes."""

    SEPARATOR = "\x1f"

    def __init__(self, captions: Iterable[Sequence[str]]) -> None:
        self._joined = Strings(
            self.SEPARATOR.join(text.replace(self.SEPARATOR, " ") for text in texts)
            for texts in captions
        )

    def __len__(self) -> int:
        return len(self._joined)

    def __getitem__(self, index: int) -> list[str]:
        return self._joined[index].split(self.SEPARATOR)


class _Reading:
    """An open picture, whose every way to be unreadable is a BadImage."""

    def __init__(self, file: Path | IO[bytes], name: str, *, where: str) -> None:
        self.file, self.name, self.place = file, name, where

    def __enter__(self) -> Image.Image:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                # one text of a PNG, a workflow say, may be as long as all of them together
                PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
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
        reason = first_line(error)
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
    return [whole(text.strip()) for text in found if isinstance(text, str) and text.strip()]
