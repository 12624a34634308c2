"""Settings of `reproduce`; a field's docstring is its help text."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Gt, Lt
from tyro.conf import Positional

from lavi_bridge.config import Count, Settings, is_given, is_list, is_number
from lavi_bridge.errors import BridgeError
from lavi_bridge.prompts.catalogue import WORLD


@dataclass
class ReproduceConfig(Settings):
    """Make the paper's tables again: train every row with several seeds, evaluate, compare.

    On the bundled models (the default) it takes a laptop hours and needs nothing else; with --full
    it takes the real models, the paper's settings, and days on large GPUs: its plan is shown first.
    A row, a seed, a stage at a time is kept: the same command goes on wherever it was stopped, and
    several of them share the work."""

    tables: Positional[list[Literal["languages", "visions", "ablations"]]]
    """Which tables: language models with one image model, image models with one language model,
    what each part is worth. Rows of two tables that are the same are trained once."""
    zoo: bool = False
    """With the bundled models (the default)."""
    full: bool = False
    """With the real models and the paper's settings: budget `paper`."""
    budget: Literal["minutes", "hours", "gpu", "paper"] | None = None
    """How much every row is given: `minutes` for a look at everything (its numbers mean nothing),
    `hours` of two cores (unset: this), `gpu` (many more pictures), all on the bundled models; or
    `paper`, the published steps on the real ones (unset with --full)."""
    seeds: Count = 3
    """Training seeds of every row; intervals are over these and over prompts."""
    out: Path | None = None
    """Folder for rows and tables (unset: runs/reproduce, or runs/reproduce-full)."""
    page: Path | None = None
    """Also write the page as this Markdown file, its pictures beside it."""
    prompts: Count | None = None
    """Prompts of each suite (unset: the budget's number; all, with --full)."""
    scale: Annotated[float, Gt(0), Lt(math.inf)] = 1.0
    """Multiplies the numbers of training steps (0.1 for a quick look)."""
    rates: list[Annotated[float, Gt(0)]] = field(default_factory=list)
    """Factors on the learning rates on pictures that are tried for every row, by the loss on
    held-out pairs after a third of the steps (unset: 0.4 1; the recipe's rates, untried, with
    --full, for `minutes` and under the paper's recipe)."""
    workers: Count | None = None
    """Rows trained at the same time, each in a process of its own (unset: one for each GPU, or for
    each core). With --full, `torchrun` instead lets all GPUs share every row."""
    dry_run: bool = False
    """Print the plan and stop."""
    yes: bool = False
    """With --full: start without asking."""

    data: str | None = None
    """With --full: captioned images, as for `train --data`."""
    batch_size: Count = 32
    """With --full: images per training step, over all processes (the paper's is not published)."""
    suites: list[str] = field(default_factory=list)
    """Prompt suites, whole ones (unset: plain, free, held-out and long prompts of the shapes world,
    for `minutes` the plain ones; with --full short long t2i-compbench, as in the paper)."""
    prompt_files: Path | None = None
    """With --full: folder with copies of the public prompt files."""
    reference: Path | None = None
    """With --full: folder of real images, which FID compares with."""
    scorers: list[str] = field(default_factory=list)
    """With --full: METRIC=FOLDER for scorers' weights, as for `evaluate --scorers`."""
    models: list[str] = field(default_factory=list)
    """ID=FOLDER for models that are neither on the Hub nor in its cache."""
    device: str | None = None
    """cpu, cuda, cuda:1 … (unset: cpu; with --full and --budget gpu cuda where there is one)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget == "paper":
            self.full = True
        if self.zoo and self.full:
            raise BridgeError("--zoo and --full (or --budget paper) exclude each other")
        if self.full and self.budget not in (None, "paper"):
            raise BridgeError(f"--budget {self.budget} is of the bundled models, without --full")
        if is_list(self.tables) and not self.tables:
            raise BridgeError("no table: languages, visions, ablations")
        if not self.full:
            for name in ("data", "prompt_files", "reference", "scorers", "models"):
                if is_given(getattr(self, name)):
                    raise BridgeError(f"'{name}' is for --full: the bundled models need nothing")
            asked = self.suites if is_list(self.suites) else []
            if odd := [suite for suite in asked if suite not in WORLD]:
                raise BridgeError(
                    f"suite '{odd[0]}' is for --full: the bundled models know {', '.join(WORLD)}"
                )
            if is_number(self.prompts) and self.prompts < 6:  # type: ignore[operator]
                raise BridgeError(f"'prompts' must be at least 6, one a category: {self.prompts}")
        if is_list(self.suites) and (part := next((s for s in self.suites if ":" in s), None)):
            raise BridgeError(f"tables are of whole suites, not of '{part}'")
