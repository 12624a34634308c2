"""What is to be done for a page: a row's search, and its runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import make_folder
from lavi_bridge.reproduce.budgets import ALL, RATES
from lavi_bridge.reproduce.options import ReproduceConfig
from lavi_bridge.reproduce.rows import Row, rows_of
from lavi_bridge.reproduce.settings import (
    Places,
    budget,
    device_of,
    rates,
    seeds_of,
)
from lavi_bridge.running import claims

SHARED = (
    "tables",
    "zoo",
    "seeds",
    "page",
    "workers",
    "dry_run",
    "yes",
    "out",
    "models",
    "scorers",
    "prompt_files",
)
"""Settings that may differ from one call to the next."""


@dataclass(frozen=True)
class Job:
    """One piece of work that is kept when it is done."""

    row: Row
    seed: int | None
    """None: the search of the row's learning rate."""

    @property
    def name(self) -> str:
        """As it is told on the terminal."""
        return f"{self.row.slug}, " + ("search" if self.seed is None else f"seed {self.seed}")

    @property
    def label(self) -> str:
        """The name of its lock and its log."""
        return "search" if self.seed is None else f"seed-{self.seed}"

    def folder(self, places: Places) -> Path:
        """The folder of its row."""
        return places.search(self.row).parent

    @property
    def kind(self) -> Literal["search", "run", "alone"]:
        """A search, one seed of a row, or an image model alone, which is not trained."""
        if self.seed is None:
            return "search"
        return "run" if self.row.trained else "alone"

    def record(self, places: Places) -> Path:
        """What it leaves when it is done."""
        if self.seed is None:
            return places.search(self.row)
        return places.result(self.row, self.seed)

    def done(self, places: Places) -> bool:
        """Whether its record is there."""
        return self.record(places).is_file()

    def seconds(self, places: Places) -> float:
        """What a job that is done took."""
        spent = json.loads(self.record(places).read_text(encoding="utf-8"))["seconds"]
        return float(spent if self.seed is None else sum(spent.values()))

    def ready(self, places: Places) -> bool:
        """Whether what it needs is there."""
        return self.seed is None or not self.row.trained or places.search(self.row).is_file()


def jobs_of(config: ReproduceConfig) -> list[Job]:
    """All work, in the order in which it is done: every row's first seed before the second ones."""
    rows = rows_of(config.tables, full=config.full)
    found = [Job(row, None) for row in rows if row.trained]
    for seed in range(config.seeds):
        found += [Job(row, seed) for row in rows if seed in seeds_of(row, config)]
    return found


def seconds_left(jobs: Sequence[Job], places: Places) -> float | None:
    """Seconds of one process until all is done, by the jobs that are.

    A row's other seeds tell what one takes, or the mean of the other rows. None: nothing is left,
    or nothing of its kind is done.
    """
    known: dict[tuple[str, str], list[float]] = {}
    done = [job.done(places) for job in jobs]
    for job in (j for j, ended in zip(jobs, done, strict=True) if ended):
        if seconds := job.seconds(places):  # where there is one rate, a search takes none
            for name in (job.row.slug, ""):
                known.setdefault((name, job.kind), []).append(seconds)
    total = 0.0
    for job in (j for j, ended in zip(jobs, done, strict=True) if not ended):
        like = known.get((job.row.slug, job.kind)) or known.get(("", job.kind))
        if like is None:
            return None
        total += fmean(like)
    return total or None


def claim(places: Places, config: ReproduceConfig) -> None:
    """Note the settings, or compare them with what the folder was begun with.

    Raises:
        BridgeError: one differs; it is named.
    """
    mine = {k: v for k, v in asdict(config).items() if k not in SHARED}
    mine |= {"device": device_of(config), "tried": rates(config)}
    if not config.full:
        mine["budget"] = asdict(budget(config)) | {"rates": RATES, "all": ALL}
    make_folder(places.out)
    found = claims.noted(places.settings, mine, advice="choose another --out", at_once=True)
    if changed := claims.difference(found, mine, ours_alone=True):
        raise BridgeError(
            f"'{places.out}' was begun with other settings ({changed}); choose another --out"
        )
