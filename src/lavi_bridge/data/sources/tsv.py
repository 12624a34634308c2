"""The published caption file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from lavi_bridge.data.sources.base import Rows
from lavi_bridge.errors import BridgeError

QUOTED = re.compile(r'"((?:[^"]|"")+)"')
"""A whole field as csv quotes it."""
Line = tuple[str, str | None]
"""Where it is, and what it says; None for what is no UTF-8."""


class TSV(Rows):
    """`image path<TAB>caption` a line, UTF-8, paths relative to the file (as published).

    Lines that follow one another with the same path are further captions of one image. The quotes
    that spreadsheets put around fields are taken off, those that belong to a caption are not.

    Args:
        problems: gets what is wrong with lines instead of an error at the first.

    Raises:
        BridgeError: the file is missing, is not UTF-8, or a line (named) is not of that form.
    """

    def __init__(self, path: Path, problems: list[str] | None = None) -> None:
        if not path.is_file():
            raise BridgeError(f"no caption file '{path}'")
        found: list[tuple[str, str, str]] = []
        for where, line in _cells(_lines(path)):
            image, _, caption = (part.strip() for part in (line or "").partition("\t"))
            if image and caption:  # without a tab all of it is the image
                found.append((image, caption, where))
                continue
            reason = (
                "not UTF-8 text; save the file as UTF-8"
                if line is None
                else f"expected `image path<TAB>caption`, got {line[:60]!r}"
            )
            if problems is None:
                raise BridgeError(f"{where}: {reason}")
            problems.append(f"{where}: {reason}")
        rows: list[tuple[str, Sequence[str], str]] = []
        last: tuple[str, list[str]] | None = None
        for image, caption, where in _unquoted(found):
            if last and last[0] == image:
                last[1].append(caption)
                continue
            last = image, [caption]
            rows.append((str(path.parent / image), last[1], where))
        if not rows:
            raise BridgeError(f"'{path}' holds no captions")
        super().__init__(rows)


def _lines(path: Path) -> Iterator[Line]:
    """The lines of a file that are not blank."""
    number = 0
    with path.open("rb") as lines:
        for raw in lines:
            for part in _split(raw, alone=not number and not raw.endswith(b"\n")):
                number += 1
                where = f"{path}:{number}"
                try:
                    line = part.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError:
                    yield where, None
                    continue
                if line.strip():
                    yield where, line


def _split(raw: bytes, *, alone: bool) -> list[bytes]:
    """What CR alone ends, as on old Macs: in a file without LF each line; elsewhere a line that
    another with a tab follows, as captions may have a CR inside."""
    line = raw.rstrip(b"\r\n")
    if b"\r" not in line:
        return [line]
    return line.split(b"\r") if alone else re.split(rb"\r(?=[^\r\t]+\t)", line)


def _cells(lines: Iterator[Line]) -> Iterator[Line]:
    """Lines, where a caption that a spreadsheet has broken within its quotes is one again."""
    waiting: list[Line] = []
    for where, line in lines:
        if waiting and line is not None and "\t" not in line:
            waiting.append((where, line))
            if line.rstrip().endswith('"'):
                whole = "\n".join(part for _, part in waiting if part)
                if QUOTED.fullmatch(whole.partition("\t")[2].strip()):
                    yield waiting[0][0], whole
                    waiting = []
            continue
        yield from waiting
        caption = (line or "").partition("\t")[2].strip()
        opens = caption.startswith('"') and not QUOTED.fullmatch(caption)
        waiting = [(where, line)] if opens else []
        if not opens:
            yield where, line
    yield from waiting


def _unquoted(rows: list[tuple[str, str, str]]) -> Iterator[tuple[str, str, str]]:
    """Rows without the quotes of spreadsheets.

    These double the quotes inside, or quote line breaks, the path, or all captions with a comma.
    Others, such as `"STOP"`, are what a picture shows.
    """
    quoted = [QUOTED.fullmatch(caption) for _, caption, _ in rows]
    bare = (caption for (_, caption, _), found in zip(rows, quoted, strict=True) if not found)
    commas = not any("," in caption or '"' in caption for caption in bare)
    for (image, caption, where), found in zip(rows, quoted, strict=True):
        path = QUOTED.fullmatch(image)
        if found and (path or re.search('""|\n', found[1]) or (commas and "," in found[1])):
            caption = " ".join(found[1].replace('""', '"').split("\n")).strip() or caption
        yield (path[1].replace('""', '"') if path else image), caption, where
