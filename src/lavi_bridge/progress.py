"""Progress bars that are lively on a terminal and quiet in a log file."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm


def progress(work: Iterable[Any] | None = None, *, total: int | None = None, desc: str = "",
             unit: str = "step", disable: bool = False) -> Any:  # fmt: skip
    """A tqdm bar; where nobody watches it writes a line every ten seconds at most."""
    seconds = 0.1 if sys.stderr.isatty() else 10.0
    return tqdm(work, total=total, desc=desc, unit=unit, disable=disable, mininterval=seconds,
                maxinterval=max(10.0, seconds))  # fmt: skip
