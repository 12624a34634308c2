"""Rows on disk that several processes write and any of them may stop: what is there is whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import disk_trouble, make_folder, write_text


class Journal:
    """A JSON object a line; each process appends to a part of its own until they are merged."""

    def __init__(self, path: Path, process: int = 0) -> None:
        self.path = path
        self.own = path.with_name(f".{path.stem}.{process}{path.suffix}")
        self._mended = False

    def rows(self) -> list[dict[str, Any]]:
        """What is there, of all processes; the line that a killed process was writing is not."""
        found = []
        parts = sorted(self.path.parent.glob(f".{self.path.stem}.*{self.path.suffix}"))
        for path in [self.path, *parts]:
            if path.exists():
                *whole, _unfinished = path.read_text(encoding="utf-8").split("\n")
                found += [json.loads(line) for line in whole]
        return found

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows that belong together.

        Raises:
            BridgeError: they cannot be written, on a full disk say.
        """
        make_folder(self.own.parent)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        try:
            if not self._mended:
                self._mend()
            with self.own.open("a", encoding="utf-8") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise BridgeError(f"cannot write {self.own}: {disk_trouble(error)}") from error

    def merge(self, order: Callable[[dict[str, Any]], Any], *, key: str) -> None:
        """Put all rows into the one file, in order; for one process, when the others are done.

        Of rows with the same `key` the last counts.
        """
        latest = {row[key]: row for row in self.rows()}
        rows = sorted(latest.values(), key=order)
        write_text(self.path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
        for part in self.path.parent.glob(f".{self.path.stem}.*{self.path.suffix}"):
            part.unlink()

    def _mend(self) -> None:
        """Cut off what a killed process left unfinished, or a row would be appended to it."""
        self._mended = True
        if self.own.exists() and (size := self.own.stat().st_size):
            with self.own.open("rb+") as file:
                content = file.read()
                if (end := content.rfind(b"\n") + 1) < size:
                    file.truncate(end)
