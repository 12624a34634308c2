"""What a run shows while it trains: a tracker, sample grids, curves."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.bridge.drawing import save_png
from lavi_bridge.data import Source
from lavi_bridge.data.sources.base import digest
from lavi_bridge.errors import BridgeError, NotANumber
from lavi_bridge.files.atomic import write_text
from lavi_bridge.show.curves import draw_curves, read_curve
from lavi_bridge.show.pictures import grid
from lavi_bridge.train.folder import TILE
from lavi_bridge.train.options import TrainConfig

CURVES = ("loss", "val_loss", "probe_loss", "word_sensitivity", "grad_norm", "images_per_second")
"""Figures that are drawn in `curves.svg`."""


def tracker_of(name: str) -> str | None:
    """The tracker's name for accelerate, which would pass over one that is not installed."""
    if name == "none":
        return None
    if importlib.util.find_spec(name) is None:
        raise BridgeError(f"tracker '{name}' is not installed: pip install {name}, or take none")
    return name


def start_tracker(accelerator: Accelerator, config: TrainConfig, step: int) -> None:
    """Open the tracker; what it holds of steps that are made again is dropped where it can."""
    name, out = config.tracker, config.out
    if name == "none":
        return
    settings = {
        key: value if isinstance(value, int | float | str | bool) else str(value)
        for key, value in dataclasses.asdict(config).items()
    }
    options: dict[str, Any] = {
        "tensorboard": {"purge_step": step + 1} if step else {},
        "wandb": {
            "name": out.name,
            "dir": str(out),
            "id": digest([out.resolve()]),
            "resume": "allow",
        },
        "trackio": {"name": out.name, "resume": "allow"},
    }
    project = "tensorboard" if name == "tensorboard" else "lavi-bridge"
    accelerator.init_trackers(project, settings, {name: options[name]})


def show_samples(
    bridge: Bridge,
    source: Source,
    config: TrainConfig,
    step: int,
    side: int,
    accelerator: Accelerator,
) -> None:
    """Draw a grid of so many pixels a picture into `samples/`, and hand it to the tracker.

    Under sharding all processes draw; the first one writes.
    """
    prompts = config.sample_prompts or some_captions(source, 4)
    try:
        images = bridge.generate(
            prompts, steps=config.sample_steps, seed=config.seed, height=side, width=side
        )
    except NotANumber as error:  # the loss may well be one, and is what matters
        if accelerator.is_main_process:
            print(f"no sample grid at step {step:,}: {error}", flush=True)
        return
    if not accelerator.is_main_process:
        return
    folder = config.out / "samples"
    folder.mkdir(exist_ok=True)
    rows = [[image] for image in images]
    picture = grid(rows, columns=[f"step {step}"], labels=prompts, tile=TILE)
    save_png(picture, folder / f"{step:06d}.png", {"step": step, "prompts": list(prompts)})
    for tracker in accelerator.trackers:
        if config.tracker == "tensorboard":
            shown = {"samples": np.asarray(picture)[None]}
            tracker.log_images(shown, step=step, dataformats="NHWC")
        elif config.tracker == "wandb":
            tracker.log_images({"samples": [picture]}, step=step)


def some_captions(source: Source, count: int) -> list[str]:
    """Different ones, from all over the data."""
    step = max(1, len(source) // 64)
    texts = [source.texts(index)[0] for index in range(0, len(source), step)]
    different = list(dict.fromkeys(filter(None, texts)))
    return different[:: max(1, len(different) // count)][:count]


def redraw_curves(out: Path) -> None:
    """Draw `curves.svg` from what metrics.jsonl has so far."""
    path = out / "metrics.jsonl"
    if path.exists():
        found = {key: read_curve(path, key) for key in CURVES}
        drawn = draw_curves({key: curve for key, curve in found.items() if len(curve) > 1})
        write_text(out / "curves.svg", drawn)
