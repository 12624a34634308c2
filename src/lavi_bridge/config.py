"""Typed settings: one source for YAML files, command-line flags and their help.

A field's docstring is its help text. A setting is looked up in the flags, then in the YAML
file, then in the recipe, then in the defaults here.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lavi_bridge.errors import BridgeError, nearest

Dtype = Literal["float32", "bfloat16", "float16"]
Match = Literal["states", "predictions", "both"]
"""What a warm start makes equal to the vision model's own text encoder."""


@dataclass(frozen=True)
class LoRA:
    """What is injected into one model; enough to inject it again. Scale is 1 (alpha = rank)."""

    rank: int
    targets: str
    """Regular expression that a layer's whole dotted name must match."""
    dropout: float = 0.0
    """On the output of the low-rank branch, as published (PEFT's own falls on its input)."""


@dataclass
class TrainConfig:
    """Train a bridge: adapter and both LoRAs, while language and vision model stay frozen."""

    language: str
    """Language model: Hub id (owner/name[@revision]), folder, or zoo:NAME."""
    vision: str
    """Vision model: Hub id, folder, or zoo:NAME."""
    data: str
    """Captioned images: a .tsv of `path<TAB>caption` lines, a folder (images with .txt files of
    the same name, or metadata.jsonl), or `shapes`, the procedurally drawn world."""
    out: Path
    """Folder of the run: the finished bridge, checkpoints, sample grids, metrics.jsonl."""
    recipe: str = "default"
    """Where unset values come from: `default`, `paper`, or a row of `lavi-bridge list recipes`."""

    steps: int = 50_000
    """Optimizer steps (paper: 50,000)."""
    batch_size: int = 8
    """Images per step and process."""
    accumulate: int = 1
    """Batches whose gradients are averaged before a step."""
    resolution: int | None = None
    """Side of the square training images, in pixels (unset: the vision model's own)."""
    flip: bool = True
    """Mirror every second image (turn off where captions speak of left and right)."""
    caption_dropout: float = 0.1
    """Fraction of captions replaced by the empty one, so that guidance has a null prompt."""

    adapter: str = "feedforward"
    """Adapter between the models (see `lavi-bridge list adapters`)."""
    rank: int = 32
    """LoRA rank on both models (paper: 32)."""
    language_rank: int | None = None
    """LoRA rank on the language model alone; 0 leaves it untouched (unset: rank)."""
    vision_rank: int | None = None
    """LoRA rank on the vision model alone; 0 leaves it untouched (unset: rank)."""
    dropout: float = 0.1
    """Dropout inside the adapter and on the output of every LoRA layer (paper: 0.1)."""

    lr_adapter: float = 1e-4
    """Learning rate of the adapter."""
    lr_language: float = 5e-6
    """Learning rate of the language model's LoRA."""
    lr_vision: float = 1e-4
    """Learning rate of the vision model's LoRA."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """Learning-rate schedule after the warm-up."""
    warmup: int = 500
    """Steps over which the learning rates rise from zero (at most a tenth of all steps)."""
    weight_decay: float = 1e-2
    """AdamW's weight decay."""
    clip: float = 1.0
    """Largest norm of the gradient over all trained parameters."""

    warm_start: int = 0
    """Steps of text-only warm start before the first image, at most: adapter and language LoRA are
    fitted to the vision model's own text encoder. It ends earlier where nothing more is gained."""
    warm_start_match: Match = "states"
    """What is fitted: the encoder's hidden `states`, the vision model's `predictions` (slower; for
    any pair and adapter), or `both`, one after the other."""
    warm_start_teacher: str | None = None
    """Text encoder to fit to, where the vision model's folder lacks its own: Hub id or folder."""
    warm_start_batch: int = 64
    """Captions per warm-start step."""
    lr_warm_start: float = 3e-3
    """Learning rate of the warm start."""

    dtype: Dtype | None = None
    """Precision of the frozen models (unset: bfloat16 on a GPU, float32 on a CPU). Trained
    parameters and the loss are always float32."""
    device: str | None = None
    """cpu, cuda, cuda:1 … (unset: cuda where there is one)."""
    workers: int = 0
    """Processes that read images."""
    seed: int = 0
    """Source of all randomness."""

    log_every: int = 10
    """Steps between two lines of metrics.jsonl."""
    sample_every: int = 1000
    """Steps between two sample grids (0: none)."""
    sample_prompts: list[str] = field(default_factory=list)
    """Prompts of the sample grids (unset: the first captions of the data)."""
    sample_steps: int = 20
    """Denoising steps of the sample grids."""
    save_every: int = 5000
    """Steps between two saved bridges `out/step-N` (0: only the finished one)."""
    max_bad: float = 0.01
    """Fraction of unreadable images past which training stops; below it they are counted and
    listed in out/bad.txt."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "resolution", "warm_start_batch",
                     "log_every", "sample_steps"):  # fmt: skip
            if _is_number(value := getattr(self, name)) and value < 1:
                raise BridgeError(f"'{name}' must be at least 1, not {value}")
        for name in ("rank", "language_rank", "vision_rank", "warmup", "warm_start", "workers",
                     "sample_every", "save_every", "lr_adapter", "lr_language", "lr_vision",
                     "lr_warm_start", "weight_decay", "clip", "seed"):  # fmt: skip
            if _is_number(value := getattr(self, name)) and value < 0:
                raise BridgeError(f"'{name}' must not be negative, not {value}")
        for name in ("caption_dropout", "dropout", "max_bad"):
            if _is_number(value := getattr(self, name)) and not 0 <= value <= 1:
                raise BridgeError(f"'{name}' is a fraction between 0 and 1, not {value}")
        if self.dtype == "float16":
            raise BridgeError("'dtype' float16 underflows in training; use bfloat16 or float32")


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn."""

    seed: int = 0
    """Seed of the first picture; picture i has seed + i."""
    steps: int = 50
    """Denoising steps (paper: 50)."""
    guidance: float = 7.5
    """Weight of classifier-free guidance (paper: 7.5); 1 turns it off."""
    negative: str = ""
    """What to steer away from."""
    height: int | None = None
    """Height in pixels (unset: the vision model's own)."""
    width: int | None = None
    """Width in pixels (unset: the vision model's own)."""
    scheduler: str | None = None
    """Sampler: unipc (the paper's), ddim, ddpm, pndm, dpm++, euler, euler-a, heun; flow-euler,
    unipc, dpm++ for flow models (unset: the family's own)."""
    batch_size: int = 4
    """Pictures drawn at once; does not change them."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings.

    Raises:
        BridgeError: the file is missing, is no YAML, or is no mapping.
    """
    import yaml

    if not path.is_file():
        raise BridgeError(f"no config file '{path}'")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f"{path}:{line + 1}" if line is not None else str(path)
        reason = getattr(error, "problem", None) or "not UTF-8 text"
        raise BridgeError(f"{where}: not valid YAML: {reason}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise BridgeError(f"{path}: expected `key: value` lines")
    return values


def checked(cls: type, values: dict[str, Any], source: str) -> dict[str, Any]:
    """Convert `values` to the field types of the dataclass `cls` (YAML reads 2e-5 as text).

    Args:
        source: what to name in an error, usually the file's path.

    Raises:
        BridgeError: an unknown key (the nearest one is named) or a value of the wrong type.
    """
    from pydantic import TypeAdapter, ValidationError

    types = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]
    result = {}
    for key, value in values.items():
        if key not in known:
            raise BridgeError(f"{source}: unknown key '{key}'{nearest(str(key), known)}")
        try:
            result[key] = TypeAdapter(types[key]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].lower()
            raise BridgeError(f"{source}: '{key}': {reason}, got {value!r}") from error
    return result


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)  # not yet so while a command line is being parsed
