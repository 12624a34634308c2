"""What is to be done for a page: a row's search, and its runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

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

    def done(self, places: Places) -> bool:
        """Whether its record is there."""
        if self.seed is None:
            return places.search(self.row).is_file()
        return places.result(self.row, self.seed).is_file()

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
