"""The runs that lie in named folders, found again as they come and go."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from lavi_bridge.bridge.folder import INDEX
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.growing import inside, stamp
from lavi_bridge.show.output import whole
from lavi_bridge.train.folder import RunFolder, is_run

DEPTH = 4
"""Folders below a named one that are looked into."""
MOST_RUNS = 500
MOST_FOLDERS = 5000
MOST_READ = 12
"""Runs whose curves are kept."""
OFTEN = 5.0
"""Seconds between two searches for new runs."""


class Runs:
    """The runs in folders, each with a key that names it and no path.

    Raises:
        BridgeError: a folder is not there.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            if not folder.is_dir():
                raise BridgeError(f"there is no folder '{folder}'")
        self.roots = list(dict.fromkeys(folder.resolve() for folder in folders))
        self.found: dict[str, RunFolder] = {}
        self.names: dict[str, str] = {}
        self.notes: list[str] = []
        """What was not looked into, in a line each."""
        self.lock = threading.RLock()
        """For those who read runs from several threads."""
        self._searched = -OFTEN
        self._read: list[str] = []

    def look(self) -> list[str]:
        """The keys of all runs, those that changed last first."""
        with self.lock:
            if time.monotonic() - self._searched >= OFTEN:
                self.search()
                self._searched = time.monotonic()
            for run in self.found.values():
                run.look()
            return sorted(self.found, key=lambda key: (-self.found[key].changed, self.names[key]))

    def read(self, key: str) -> RunFolder:
        """A run with its curves as they are now; those of some others are forgotten.

        Raises:
            BridgeError: there is no such run, or no longer.
        """
        with self.lock:
            if key not in self.found:
                raise BridgeError("that run is no longer there")
            run = self.found[key]
            run.read_on()
            self._read = [key, *(other for other in self._read if other != key)]
            for other in self._read[MOST_READ:]:
                if other in self.found:
                    self.found[other].forget()
            self._read = self._read[:MOST_READ]
            return run

    def search(self) -> None:
        """Find the runs that there are now."""
        self.notes, there = [], {}
        for root in self.roots:
            for folder in self._walk(root):
                name = os.path.relpath(folder, root.parent if len(self.roots) > 1 else root)
                name = whole(root.name if name == "." else name)
                key = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
                there[key] = name
                if key not in self.found:
                    self.found[key] = RunFolder(folder, root)
        self.found = {key: run for key, run in self.found.items() if key in there}
        self.names = there

    def _walk(self, root: Path) -> list[Path]:
        """The folders of runs and bridges below one, without following links."""
        runs: list[Path] = []
        waiting, seen = [(root, 0)], 0
        while waiting:
            folder, depth = waiting.pop()
            seen += 1
            if len(runs) >= MOST_RUNS or seen > MOST_FOLDERS:
                self.notes.append(f"{root.name} has more than is shown: name a folder inside of it")
                break
            if is_run(folder, root) or stamp(folder / INDEX, root) is not None:
                runs.append(folder)
            elif depth < DEPTH:
                waiting += [(inner, depth + 1) for inner in self._folders(folder, root)]
        return runs

    def _folders(self, folder: Path, root: Path) -> list[Path]:
        found = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    path = Path(entry.path)
                    if entry.is_symlink():
                        if not inside(path, root):
                            name = os.path.relpath(path, root)
                            self.notes.append(f"{name} leads out of {root.name}: not looked into")
                    elif entry.is_dir():
                        found.append(path)
        except OSError as error:
            self.notes.append(f"{folder.name} cannot be read: {error.strerror}")
        return found[:MOST_FOLDERS]


def holds_runs(folder: Path) -> bool:
    """Whether a folder is to be shown as runs: it is one, or has some inside."""
    if not folder.is_dir():
        return False
    runs = Runs([folder])
    runs.search()
    return bool(runs.found)
