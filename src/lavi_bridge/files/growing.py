"""A file of JSON lines that somebody else is writing: each look reads on where the last one ended.

Nothing is read that leads out of a named folder, and nothing is ever written.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHUNK = 1 << 20
MOST_LINE = 1 << 20
"""Bytes of a line; longer ones are passed over."""
TAIL = 1 << 16
"""Bytes at the end of a file that hold its last lines."""


def inside(path: Path, root: Path) -> bool:
    """Whether a path lies in a folder once all links are followed; `root` is resolved."""
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a circle of links
        return False


def stamp(path: Path, root: Path) -> tuple[int, int, int] | None:
    """What changes when a file does (number, size, time in ns); None where there is none inside."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode) or not inside(path, root):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


class Growing:
    """Reads the rows of a file as they come."""

    def __init__(self, path: Path, root: Path) -> None:
        self.path, self.root = path, root
        self._seen: tuple[int, int, int] | None = None
        self._restart()

    def _restart(self) -> None:
        self._end, self._rest, self._skips = 0, b"", False
        self.lines = self.bad = self.first_bad = 0

    @property
    def trouble(self) -> str:
        """What is wrong with the file, in a line; nothing where all is well."""
        if not self.bad:
            return ""
        more = f" and {self.bad - 1} more" if self.bad > 1 else ""
        return f"{self.path.name}: line {self.first_bad}{more} cannot be read as JSON"

    def more(self) -> tuple[bool, list[dict[str, Any]]]:
        """Whether the file began anew, so that earlier rows no longer count, and the new rows.

        A last line without its end is left for the next look.
        """
        now = stamp(self.path, self.root)
        if now is None or now == self._seen:
            anew = now is None and self._seen is not None
            if anew:
                self._seen = None
                self._restart()
            return anew, []
        anew = self._seen is not None and (now[0] != self._seen[0] or now[1] < self._end)
        if anew:
            self._restart()
        self._seen = now
        return anew, list(self._rows())

    def _rows(self) -> Iterator[dict[str, Any]]:
        try:
            with self.path.open("rb") as file:
                file.seek(self._end)
                while chunk := file.read(CHUNK):
                    self._end += len(chunk)
                    *whole, self._rest = (self._rest + chunk).split(b"\n")
                    for line in whole:
                        if (row := self._row(line)) is not None:
                            yield row
                    if len(self._rest) > MOST_LINE:
                        self._rest, self._skips = b"", True
        except OSError:  # gone, or not ours to read: what was read before stays
            return

    def _row(self, line: bytes) -> dict[str, Any] | None:
        self.lines += 1
        skipped, self._skips = self._skips, False
        row = None if skipped else parsed(line)
        if row is None and (skipped or line.strip()):
            self.bad += 1
            self.first_bad = self.first_bad or self.lines
        return row


def parsed(line: bytes) -> dict[str, Any] | None:
    """A line's JSON object; None where it is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def last_rows(path: Path, root: Path) -> list[dict[str, Any]]:
    """The rows at the end of a file, in their order, without reading the rest of it."""
    if stamp(path, root) is None:
        return []
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            lines = file.read(TAIL).split(b"\n")[:-1]
    except OSError:
        return []
    rows = map(parsed, lines if size <= TAIL else lines[1:])
    return [row for row in rows if row is not None]


def read_object(path: Path, root: Path) -> dict[str, Any]:
    """A small file's JSON object.

    Raises:
        OSError: it is not there, not inside, or too large.
        ValueError: it is no JSON object.
    """
    found = stamp(path, root)
    if found is None:
        raise FileNotFoundError(path.name)
    if found[1] > MOST_LINE:
        raise OSError("it is larger than 1 MB")
    row = parsed(path.read_bytes())
    if row is None:
        raise ValueError("it is no JSON object")
    return row
