"""The published caption file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lavi_bridge.data.base import Rows
from lavi_bridge.errors import BridgeError


class TSV(Rows):
    """`image path<TAB>caption` a line, UTF-8, paths relative to the file (as published).

    Lines that follow one another with the same path are further captions of one image.

    Args:
        problems: gets what is wrong with lines instead of an error at the first.

    Raises:
        BridgeError: the file is missing, is not UTF-8, or a line (named) is not of that form.
    """

    def __init__(self, path: Path, problems: list[str] | None = None) -> None:
        if not path.is_file():
            raise BridgeError(f"no caption file '{path}'")
        rows: list[tuple[str, Sequence[str], str]] = []
        last: tuple[str, list[str]] | None = None
        for where, row in _lines(path):
            if isinstance(row, str):
                if problems is None:
                    raise BridgeError(f"{where}: {row}")
                problems.append(f"{where}: {row}")
                continue
            image, caption = row
            if last and last[0] == image:
                last[1].append(caption)
                continue
            last = image, [caption]
            rows.append((str(path.parent / image), last[1], where))
        if not rows:
            raise BridgeError(f"'{path}' holds no captions")
        super().__init__(rows)


def _lines(path: Path) -> Iterator[tuple[str, tuple[str, str] | str]]:
    """Where each line is, and its image and caption, or else what is wrong with it."""
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, 1):
            where = f"{path}:{number}"
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                yield where, "not UTF-8 text; save the file as UTF-8"
                continue
            if not line.strip():
                continue
            image, _, caption = (part.strip() for part in line.partition("\t"))
            if image and caption:  # without a tab all of it is the image
                yield where, (image, caption)
            else:
                yield where, f"expected `image path<TAB>caption`, got {line[:60]!r}"
