"""How a row is trained and evaluated, with the bundled and with the real models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lavi_bridge.config import Sampling
from lavi_bridge.errors import BridgeError
from lavi_bridge.evaluate.options import EvaluateConfig
from lavi_bridge.files.atomic import at_home
from lavi_bridge.recipes import PAPER_SUFFIX, RECIPES
from lavi_bridge.reproduce.budgets import BUDGETS, FREE, PLAIN, SAMPLING, Budget, zoo_settings
from lavi_bridge.reproduce.options import ReproduceConfig
from lavi_bridge.reproduce.rows import LANGUAGES, OWN, VISIONS, Recipe, Row
from lavi_bridge.running.device import processes
from lavi_bridge.train.options import TrainConfig

SEARCH_SEED = 1_000
"""The seed of the search, distinct from every seed that is reported."""
LEARNING_RATES = ("lr_adapter", "lr_language", "lr_vision")
"""Those on pictures, which a search tries; a start has its own."""
ALL_OF_THEM = 1_000_000
"""Checkpoints that a followed row keeps until it was judged: each stop leaves one more."""
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

    def pictures(self, row: Row, seed: int) -> Path:
        """Encoded pictures, which all rows of one image model and seed share."""
        return self.out / "pictures" / f"{row.vision}-{seed}"

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
        factor: on the learning rates on pictures.
        language: where an untrained model was made.
        share: of the steps.
    """
    values = _full(row, config) if config.full else _zoo(row, config)
    values["device"] = device_of(config)
    if row.language == OWN:
        values["warm_start"] = 0  # its states are those that the others start towards
    if not config.full:
        values["cache"] = Places(folder(config)).pictures(row, seed)
    values |= {"adapter": row.adapter, "recipe": "paper" if row.recipe == "paper" else "default"}
    for name in LEARNING_RATES:
        if name in values:
            values[name] *= factor
    for name in ("steps", "warm_start"):
        if values.get(name):
            values[name] = max(1, round(values[name] * config.scale * share))
    values["validate_every"] = 0
    # checkpoints on the way: a run that was killed does not begin again, and rows are followed
    values["save_every"] = 1000 if config.full else quarter(values["steps"])
    return TrainConfig(
        **values,
        language=language or language_of(row, config),
        vision=vision_of(row, config),
        out=out,
        language_rank=None if row.language_lora else 0,
        vision_rank=None if row.vision_lora else 0,
        seed=seed,
        keep=ALL_OF_THEM if row.followed and not config.full else 1,
    )


def _zoo(row: Row, config: ReproduceConfig) -> dict[str, Any]:
    """Settings with the bundled models."""
    found = zoo_settings(budget(config), row.recipe)
    if row.pairs:
        found["warm_start_pairs"] = "shapes"
    return found | {"tokens": LANGUAGES[row.language].tokens}


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
            list(dict.fromkeys([PLAIN, *(config.suites or budget(config).suites)])),
            ["shapes", "shapes-facts", "shapes-fd"],
            out,
            limit=config.prompts or budget(config).prompts,
            reference=Places(folder(config)).reference,
            sampling=SAMPLING,
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


def on_its_way(row: Row, config: ReproduceConfig, entry: str, out: Path) -> EvaluateConfig:
    """The settings of a look at a bridge, by fewer prompts than at its end."""
    whole = evaluation(row, config, entry, out)
    return replace(
        whole,
        suites=[suite for suite in (PLAIN, FREE) if suite in whole.suites],
        metrics=["shapes"],
        limit=min(budget(config).followed_by, whole.limit or budget(config).followed_by),
        reference=None,
    )


def followed(row: Row, config: ReproduceConfig, steps: int) -> list[int]:
    """The steps on pictures after which a row is judged on its way, and its last.

    0 is the end of its start, which the own encoder does not have. The end is judged like the rest,
    too, so that all points of a curve are of the same prompts and noise.
    """
    shares = budget(config).followed
    if config.full or not row.followed or not shares:
        return []
    marks = sorted({round(share * 4) * quarter(steps) for share in shares})
    return [*(n for n in marks if (n or row.language != OWN) and n < steps), steps]


def quarter(steps: int) -> int:
    """Steps between two checkpoints of a run with the bundled models."""
    return max(1, -(-steps // 4))


def budget(config: ReproduceConfig) -> Budget:
    """What the bundled models' rows are given."""
    return BUDGETS[config.budget or "hours"]


def device_of(config: ReproduceConfig) -> str | None:
    """Where it runs; the bundled models are so small that a CPU is the place for them."""
    if config.full or config.budget == "gpu":
        return config.device
    return config.device or "cpu"


def folder(config: ReproduceConfig) -> Path:
    """Where everything goes."""
    return config.out or Path("runs/reproduce-full" if config.full else "runs/reproduce")


def rates(config: ReproduceConfig, recipe: Recipe = "ours") -> tuple[float, ...]:
    """The factors that the search of a recipe's rows tries; one is no search."""
    published = config.full or recipe == "paper"
    return tuple(config.rates) or ((1.0,) if published else budget(config).rates)


def search_share(config: ReproduceConfig) -> float:
    """The share of the steps that each factor is tried for."""
    return Budget.share if config.full else budget(config).share


def seeds_of(row: Row, config: ReproduceConfig) -> range:
    """A row that is not trained is the same for every seed."""
    return range(config.seeds if row.trained else 1)


def is_control(row: Row) -> bool:
    """Whether the row's language model is made with first weights."""
    return row.trained and LANGUAGES[row.language].untrained
