"""How a row is trained and evaluated: the budgets, with the bundled and with the real models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavi_bridge.config import Sampling
from lavi_bridge.errors import BridgeError
from lavi_bridge.evaluate.options import EvaluateConfig
from lavi_bridge.files.atomic import at_home
from lavi_bridge.recipes import PAPER, PAPER_SUFFIX, RECIPES
from lavi_bridge.reproduce.options import ReproduceConfig
from lavi_bridge.reproduce.rows import LANGUAGES, UNTRAINED, VISIONS, Row
from lavi_bridge.running.device import processes
from lavi_bridge.train.options import TrainConfig

RATES = (0.4, 1.0)
"""Factors on all learning rates of a row that the search tries. None above 1: after a third of the
steps a larger rate looks better than it is after all of them (T5-Large's loss on held-out pairs at
2.5 times and at once the rates: .0759 and .0760 after a third, .0606 and .0597 at the end)."""
SEARCH_SEED = 1_000
"""The seed of the search, distinct from every seed that is reported."""
SEARCH_SHARE = 1 / 3
"""The share of the steps that each rate is tried for."""
VALIDATION = 64
"""Pairs that the search holds out."""
LEARNING_RATES = ("lr_adapter", "lr_language", "lr_vision", "lr_warm_start")

ZOO: dict[str, dict[str, Any]] = {
    # the shorter of the two: a step on captions takes a third of the time of one on pictures
    "ours": {
        "warm_start": 500,
        "warm_start_batch": 16,
        "steps": 40,
        "lr_warm_start": 3e-3,
        "lr_adapter": 3e-4,
        "lr_language": 3e-4,
        "lr_vision": 3e-4,
        "schedule": "cosine",
        "warmup": 20,
        "dropout": 0.0,
    },
    # as published but for the length, the rank, and ten times the rates: it is a short run
    "paper": PAPER | {"steps": 320, "lr_adapter": 1e-3, "lr_language": 5e-5, "lr_vision": 1e-3},
}
ZOO_ALL: dict[str, Any] = {
    "data": "shapes",
    "rank": 16,
    "batch_size": 16,
    "flip": False,
    "sample_every": 0,
    "tracker": "none",
    "validation": VALIDATION,
    "log_every": 40,
    "warm_start_report": False,
}
"""For every row; captions speak of left and right, hence no flip."""
ZOO_SAMPLING = Sampling(steps=10, guidance=4.0, scheduler="dpm++", batch_size=48)
ZOO_PROMPTS = 384
FULL_WARM_START = 2_000
"""Steps on captions with the real models, in our recipe."""
FULL_STEPS = 50
FULL_SAMPLING = Sampling(steps=FULL_STEPS, guidance=7.5, scheduler="unipc", batch_size=16)
FULL_SUITES = ("short", "long", "t2i-compbench")


@dataclass(frozen=True)
class Places:
    """Where everything of a run lies."""

    out: Path

    @property
    def settings(self) -> Path:
        return self.out / "settings.json"

    @property
    def reference(self) -> Path:
        """Drawn scenes of the prompts, for the Fréchet distance."""
        return self.out / "reference"

    def search(self, row: Row) -> Path:
        """The record of a row's search."""
        return self.out / "rows" / row.slug / "search.json"

    def job(self, row: Row, seed: int) -> Path:
        """The folder of one row and seed; of a row that is not trained, seed 0 is all."""
        return self.out / "rows" / row.slug / f"seed-{seed}"

    def result(self, row: Row, seed: int) -> Path:
        return self.job(row, seed) / "result.json"


def where(id: str, config: ReproduceConfig) -> str:
    """A model's id, or the folder that the user gave for it."""
    for text in config.models:
        name, told, folder = text.partition("=")
        if not told:
            raise BridgeError(f"--models takes ID=FOLDER, not '{text}'")
        known = [
            m.full.removesuffix("/text_encoder") for m in (*LANGUAGES.values(), *VISIONS.values())
        ]
        if name not in known:
            listed = ", ".join(dict.fromkeys(known))
            raise BridgeError(f"--models: no row has '{name}'; known: {listed}")
        if id == name or id.startswith(f"{name}/"):
            return str(at_home(folder)) + id.removeprefix(name)
    return id


def language_of(row: Row, config: ReproduceConfig) -> str:
    """Id or folder of a row's language model; of an untrained one, of what it takes its shape."""
    model = LANGUAGES[row.language]
    return where(model.full if config.full else model.zoo, config)


def vision_of(row: Row, config: ReproduceConfig) -> str:
    """Id or folder of a row's image model."""
    model = VISIONS[row.vision]
    return where(model.full if config.full else model.zoo, config)


def training(
    row: Row,
    config: ReproduceConfig,
    *,
    seed: int,
    factor: float,
    out: Path,
    language: str | None = None,
    share: float = 1.0,
) -> TrainConfig:
    """The settings of one training run.

    Args:
        factor: on all learning rates.
        language: where an untrained model was made.
        share: of the steps.
    """
    values = dict(_full(row, config) if config.full else ZOO[row.recipe] | ZOO_ALL)
    values["device"] = device_of(config)
    values |= {"adapter": row.adapter, "recipe": "paper" if row.recipe == "paper" else "default"}
    for name in LEARNING_RATES:
        if name in values:
            values[name] *= factor
    for name in ("steps", "warm_start"):
        if values.get(name):
            values[name] = max(1, round(values[name] * config.scale * share))
    values |= {"validate_every": values["steps"]} if share < 1 else {"validate_every": 0}
    # one checkpoint on the way, so that a run that was killed does not begin again
    values["save_every"] = 1000 if config.full else max(1, -(-values["steps"] // 2))
    return TrainConfig(
        **values,
        language=language or language_of(row, config),
        vision=vision_of(row, config),
        out=out,
        language_rank=None if row.language_lora else 0,
        vision_rank=None if row.vision_lora else 0,
        seed=seed,
        keep=1,
    )


def _full(row: Row, config: ReproduceConfig) -> dict[str, Any]:
    """Settings with the real models: the paper's row of the pair, or our defaults for it."""
    pair = LANGUAGES[row.language].full, VISIONS[row.vision].full
    recipe = next(r for r in RECIPES.values() if (r.language, r.vision) == pair)
    theirs = recipe.settings
    if row.recipe == "ours":
        kept = ("resolution", "lr_adapter", "lr_language", "lr_vision", "steps", "rank")
        theirs = {k: v for k, v in theirs.items() if k in kept}
        theirs |= {"warm_start": FULL_WARM_START, "lr_warm_start": TrainConfig.lr_warm_start}
    world = processes()[1]
    if config.batch_size % world:
        raise BridgeError(f"'batch_size' {config.batch_size} cannot be shared by {world} processes")
    batch = config.batch_size // world
    return theirs | {"data": config.data or "captions.tsv", "batch_size": batch}


def evaluation(row: Row, config: ReproduceConfig, entry: str, out: Path) -> EvaluateConfig:
    """The settings of one evaluation; `entry` is a bridge or an image model."""
    entries = [f"{row.slug}={entry}"]
    if not config.full:
        return EvaluateConfig(
            entries,
            list(dict.fromkeys(["shapes", *config.suites])),
            ["shapes", "shapes-facts", "shapes-fd"],
            out,
            limit=config.prompts or ZOO_PROMPTS,
            reference=Places(folder(config)).reference,
            sampling=ZOO_SAMPLING,
            device=device_of(config),
        )
    return EvaluateConfig(
        entries,
        list(config.suites or FULL_SUITES),
        out=out,
        prompts=config.prompt_files,
        limit=config.prompts,
        reference=config.reference,
        scorers=config.scorers,
        sampling=FULL_SAMPLING,
        suffix=PAPER_SUFFIX,
        device=config.device,
    )


def device_of(config: ReproduceConfig) -> str | None:
    """Where it runs; the bundled models are so small that a CPU is the place for them."""
    return config.device if config.full else config.device or "cpu"


def folder(config: ReproduceConfig) -> Path:
    """Where everything goes."""
    return config.out or Path("runs/reproduce-full" if config.full else "runs/reproduce")


def rates(config: ReproduceConfig) -> tuple[float, ...]:
    """The factors that the search tries; one is no search."""
    return tuple(config.rates) or ((1.0,) if config.full else RATES)


def seeds_of(row: Row, config: ReproduceConfig) -> range:
    """A row that is not trained is the same for every seed."""
    return range(config.seeds if row.trained else 1)


def is_control(row: Row) -> bool:
    """Whether the row's language model is made with first weights."""
    return row.language == UNTRAINED
