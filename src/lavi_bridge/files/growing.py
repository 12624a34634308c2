"""A file of JSON lines that somebody else is writing: each look reads on where the last one ended.

Nothing is read that leads out of a named folder, and nothing is ever written.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

CHUNK = 1 << 18
"""Bytes that are read at a time: more rows at once only keep the garbage collector busy."""
MOST_LINE = 1 << 20
"""Bytes of a line; longer ones are passed over."""
HEAD = 256
"""Bytes at the beginning by which a file is known again."""
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
        self._end, self._head, self._rest, self._skips = 0, b"", b"", False
        self.lines = self.bad = self.first_bad = 0

    @property
    def trouble(self) -> str:
        """What is wrong with the file, in a line; nothing where all is well."""
        if not self.bad:
            return ""
        more = f" and {self.bad - 1} more" if self.bad > 1 else ""
        return f"{self.path.name}: line {self.first_bad}{more} cannot be read as JSON"

    def more(self) -> Iterator[list[dict[str, Any]] | None]:
        """The new rows, some at a time; first None where the file began anew, so that earlier ones
        no longer count.

        A last line without its end is left for the next look.
        """
        now, seen = stamp(self.path, self.root), self._seen
        if now == seen:
            return
        self._seen = now
        try:
            with nullcontext() if now is None else self.path.open("rb") as file:
                head = b"" if file is None else file.read(HEAD)
                # a number is given again to a file that is made after another was deleted
                same = now is not None and seen is not None and now[0] == seen[0]
                same = same and head.startswith(self._head)
                if seen is not None and not (same and now and now[1] >= self._end):
                    self._restart()
                    yield None
                if file is None:
                    return
                self._head = head
                file.seek(self._end)
                while chunk := file.read(CHUNK):
                    self._end += len(chunk)
                    *whole, self._rest = (self._rest + chunk).split(b"\n")
                    yield self._parsed(whole)
                    if len(self._rest) > MOST_LINE:
                        self._rest, self._skips = b"", True
        except OSError:  # gone, or not ours to read: what was read before stays
            return

    def _parsed(self, lines: list[bytes]) -> list[dict[str, Any]]:
        """All of the lines at once, which is faster, or each where one is bad."""
        if not self._skips:
            with suppress(ValueError, RecursionError):
                rows: list[Any] = json.loads(b"[" + b",".join(lines) + b"]")
                if len(rows) == len(lines) and all(type(row) is dict for row in rows):
                    self.lines += len(lines)
                    return rows
        return [row for line in lines if (row := self._row(line)) is not None]

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


def last_rows(path: Path, root: Path) -> Iterator[dict[str, Any]]:
    """The rows at the end of a file, the last first, without reading the rest of it."""
    if stamp(path, root) is None:
        return
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            lines = file.read(TAIL).split(b"\n")[:-1]
    except OSError:
        return
    for line in reversed(lines if size <= TAIL else lines[1:]):
        if (row := parsed(line)) is not None:
            yield row


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
