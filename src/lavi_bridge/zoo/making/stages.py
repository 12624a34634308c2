"""How a bundled model is made: stages that each begin and finish, and a card."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lavi_bridge.files.atomic import new_folder, write_text
from lavi_bridge.files.locate import ZOO
from lavi_bridge.zoo.making.fitting import Objective, Schedule


@dataclass(frozen=True)
class Context:
    """Where a build reads and writes."""

    out: Path
    device: str
    check: bool
    """Reduced: smaller training set and batches, 40 steps."""
    start: Path | None = None
    """Folder of earlier weights that a language model goes on from."""

    def work(self, name: str) -> Path:
        """States, logs and caches of a model in the making."""
        return self.out / "work" / name

    @property
    def blocks(self) -> int:
        """Blocks of 256 scenes that the image models train on."""
        return 4 if self.check else 160

    def base(self, name: str) -> Path:
        """A finished model that another starts from: of this build, or else the bundled one.

        A reduced one could teach nothing.
        """
        built = self.out / name
        return built if built.is_dir() and not self.check else ZOO / name


@dataclass(frozen=True)
class Stage:
    """One task under one schedule."""

    name: str
    schedule: Schedule
    task: Callable[[Context], Objective]
    finish: Callable[[Context, Objective], None]
    """Writes what later stages, or the finished model, need."""


@dataclass(frozen=True)
class Bundled:
    """A bundled model: what it is in a line, and how it is made."""

    about: str
    stages: tuple[Stage, ...]
    needs: tuple[str, ...] = ()


def anew(folder: Path) -> AbstractContextManager[Path]:
    """A folder written whole or not at all, in place of whatever was there."""
    return new_folder(folder, own=[entry.name for entry in folder.glob("*")])


def fresh(kind: Any, config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(config)


def write_card(folder: Path, name: str, library: str, about: str, text: str) -> None:
    """Write the model card of a finished model."""
    card = f"""---
license: mit
library_name: {library}
---
# {name}

{about}.

{text}

Made by `lavi-bridge zoo build {name}`. Recipe, curves and scores: `docs/zoo.md` of LaVi-Bridge.
"""
    write_text(folder / "README.md", card)
