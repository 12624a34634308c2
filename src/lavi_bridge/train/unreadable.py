"""Pictures that cannot be read: left out, counted, and listed; many of them end the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from accelerate.utils import gather_object

from lavi_bridge.data.examples import Example
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import write_text


class Unreadable:
    """Remembers what is wrong with pictures, alike on all processes.

    Args:
        path: `bad.txt` of the run; only the `main` process writes it.
        pictures: how many the data set has.
        share: of them that may be unreadable, at most; above it the run ends.
    """

    def __init__(
        self, path: Path, *, pictures: int, share: float, processes: int, main: bool
    ) -> None:
        self.errors: dict[int, str] = {}
        """What is wrong, by sample."""
        self._path, self._processes, self._main = path, processes, main
        self._pictures, self._share = pictures, share
        self._waiting: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self.errors)

    def only_good(self, examples: Sequence[Example]) -> list[Example]:
        """Leave unreadable pictures out, and remember them.

        Raises:
            BridgeError: an error is no fault of a picture's, or there are too many.
        """
        for example in examples:
            if example.fatal:
                raise BridgeError(str(example.error))
            if example.error and example.sample.index not in self.errors:
                self._waiting.append((example.sample.index, example.error))
        if self._processes == 1:
            self.count()
        return [example for example in examples if example.good]

    def count(self) -> None:
        """Gather what any process could not read; all processes must call it.

        Raises:
            BridgeError: there are too many, in all processes alike.
        """
        alone = self._processes == 1
        gathered = self._waiting if alone else gather_object(self._waiting)
        self._waiting = []
        fresh = {index: error for index, error in gathered if index not in self.errors}
        if not fresh:
            return
        self.errors |= fresh
        self.write()
        if len(self) > min(self._share * self._pictures, self._pictures - 1):
            raise BridgeError(
                f"{next(reversed(fresh.values()))} ({len(self)} of {self._pictures} pictures "
                f"are unreadable so far, more than max_bad = {self._share} allows)"
            )

    def restore(self, errors: Mapping[str, str]) -> None:
        """Take over what an earlier part of the run could not read."""
        self.errors = {int(index): error for index, error in errors.items()}

    def write(self) -> None:
        """List them in `bad.txt`; a file of before is emptied where there are none."""
        if self._main and (self.errors or self._path.exists()):
            write_text(self._path, "".join(f"{error}\n" for error in self.errors.values()))
