"""Progress bars that are lively on a terminal and quiet in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm


def progress(
    work: Iterable[Any] | None = None,
    *,
    total: int | None = None,
    desc: str = "",
    unit: str = "step",
    disable: bool = False,
) -> Any:
    """A tqdm bar; where nobody watches it writes a line every ten seconds at most."""
    seconds = 0.1 if sys.stderr.isatty() else 10.0
    options: dict[str, Any] = {
        "total": total,
        "desc": desc,
        "unit": unit,
        "disable": disable,
        "mininterval": seconds,
        "maxinterval": max(10.0, seconds),
    }
    if _whole is None or disable or not _whole.begin(desc):
        return tqdm(work, **options)
    return _PartOfWhole(work, bar_format="{l_bar}{bar}{r_bar} {left_in_all}", **options)


@contextmanager
def whole(bars: Sequence[tuple[str, float]]) -> Iterator[None]:
    """Inside, each of these bars tells how much time is left in all of them.

    Args:
        bars: description and share of the time (in any unit) of each, in the order they come in.
    """
    global _whole
    before, _whole = _whole, _Whole(bars)
    try:
        yield
    finally:
        _whole = before


class _Whole:
    def __init__(self, bars: Sequence[tuple[str, float]]) -> None:
        self.ahead = list(bars)
        self.total = sum(share for _, share in bars)
        self.done = self.current = 0.0
        self.begun = time.perf_counter()

    def begin(self, desc: str) -> bool:
        """Take a bar's turn, and all before it as done; False for a bar of something else."""
        names = [name for name, _ in self.ahead]
        if desc not in names:
            return False
        at = names.index(desc)
        self.done += self.current + sum(share for _, share in self.ahead[:at])
        self.current = self.ahead[at][1]
        del self.ahead[: at + 1]
        return True

    def seconds_left(self, fraction: float) -> float | None:
        """Seconds until all is done; None before anything can be told."""
        done = self.done + fraction * self.current
        spent = time.perf_counter() - self.begun
        return spent * (self.total - done) / done if done else None


_whole: _Whole | None = None


class _PartOfWhole(tqdm):
    @property
    def format_dict(self) -> dict[str, Any]:
        found = dict(super().format_dict)
        left = None
        if _whole is not None and found["total"]:
            left = _whole.seconds_left(found["n"] / found["total"])
        told = f"{tqdm.format_interval(left)} left in all" if left is not None else ""
        return found | {"left_in_all": told}
