"""Whether what the search of rates chooses holds at full length: `python benchmarks/search.py`

Trains rows of the tables (`lavi-bridge reproduce`) with every factor for all of their steps, with
the search's seed, and shows the losses on held-out pairs beside those of the search, which stopped
after a third. The tables' folder is that of a run whose searches are done; what is trained here is
kept in it, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from lavi_bridge.reproduce.options import ReproduceConfig
from lavi_bridge.reproduce.rows import rows_of
from lavi_bridge.reproduce.searching import _control, _last_loss, _tidy, _train
from lavi_bridge.reproduce.settings import SEARCH_SEED, Places, training
from lavi_bridge.running.openmp import sleep_while_waiting

TABLES: list[Literal["languages", "visions", "ablations"]] = ["languages", "visions", "ablations"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", default=["own-sd", "t5-small-sd"])
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    sleep_while_waiting()
    config = ReproduceConfig(TABLES, budget="hours", out=asked.out)
    places, rows = Places(asked.out), {row.slug: row for row in rows_of(TABLES)}
    print("| row | factor | loss after a third | at the end | seconds |\n|---|---|---|---|---|")
    for slug in asked.rows:
        row, folder = rows[slug], asked.out / "full-length" / slug
        short = json.loads(places.search(row).read_text(encoding="utf-8"))["losses"]
        folder.mkdir(parents=True, exist_ok=True)
        language = _control(row, config, SEARCH_SEED, folder / "language")
        for told in short:  # none where nothing was searched
            factor = float(told)
            out, begun = folder / told, time.perf_counter()
            settings = training(
                row, config, seed=SEARCH_SEED, factor=factor, out=out, language=language
            )
            settings = replace(settings, validate_every=settings.steps, keep=1)
            _train(settings)
            _tidy(settings)
            cells = f"{short[told]:.4f} | {_last_loss(out):.4f}"
            print(f"| {slug} | {told} | {cells} | {time.perf_counter() - begun:.0f} |")


if __name__ == "__main__":
    main()
