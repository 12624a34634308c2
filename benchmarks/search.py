"""Whether what the search of rates chooses holds at full length: `python benchmarks/search.py`

Trains rows of the tables (`lavi-bridge reproduce`) with every factor for all of their steps, with
the search's seed, and shows the losses on held-out pairs beside those of the search, which stopped
after a third. The tables' folder is that of a run whose searches are done; what is trained here is
kept in it, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Literal

import torch

from lavi_bridge.reproduce.options import ReproduceConfig
from lavi_bridge.reproduce.rows import rows_of
from lavi_bridge.reproduce.searching import try_rates
from lavi_bridge.reproduce.settings import Places
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
    lines = ["| row | factor | loss after a third | at the end |", "|---|---|---|---|"]
    for slug in asked.rows:
        row = rows[slug]
        short = json.loads(places.search(row).read_text(encoding="utf-8"))["losses"]
        factors = [float(told) for told in short]
        whole = try_rates(row, config, factors, asked.out / "full-length" / slug, share=1.0)
        lines += [f"| {slug} | {told} | {short[told]:.4f} | {whole[told]:.4f} |" for told in short]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
