"""Checkpoints of a run: `OUT/step-N`, each a bridge that can be used and what resuming needs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from lavi_bridge.files.atomic import write_text

STATE = "state.safetensors"
BEST = "best.json"
STEP = re.compile(r"step-(\d+)")


def checkpoints(out: Path) -> dict[int, Path]:
    """The whole checkpoints of a run by step, in order.

    The state is written last and moved into place at once, so a checkpoint that has one is whole.
    """
    found = {}
    for folder in out.glob("step-*"):
        match = STEP.fullmatch(folder.name)
        if match and (folder / STATE).is_file():
            found[int(match[1])] = folder
    return dict(sorted(found.items()))


def latest(out: Path) -> Path | None:
    """The last whole checkpoint, if there is one."""
    return next(reversed(checkpoints(out).values()), None)


def place(out: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return out / f"step-{step}"


def prune(out: Path, keep: int) -> None:
    """Leave the last `keep` checkpoints and the best one; delete earlier ones."""
    kept = {best(out).get("step")}
    for step, folder in list(checkpoints(out).items())[:-keep]:
        if step not in kept:
            shutil.rmtree(folder)


def best(out: Path) -> dict[str, Any]:
    """Step and loss of the best checkpoint; {} before there is one."""
    path = out / BEST
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return found


def note_best(out: Path, step: int, loss: float) -> None:
    """Remember the step's checkpoint as the best, where its loss is the lowest so far."""
    if loss < best(out).get("val_loss", float("inf")):
        write_text(out / BEST, json.dumps({"step": step, "val_loss": loss}) + "\n")
