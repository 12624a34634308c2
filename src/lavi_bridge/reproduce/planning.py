"""What the tables would cost with real models, from their configs alone."""

from __future__ import annotations

from dataclasses import dataclass

from lavi_bridge.plan.plan import Plan, make_plan
from lavi_bridge.prompts.catalogue import SUITES
from lavi_bridge.prompts.suites import load_suite
from lavi_bridge.reproduce.options import ReproduceConfig
from lavi_bridge.reproduce.rows import Row, rows_of
from lavi_bridge.reproduce.settings import (
    FULL_STEPS,
    evaluation,
    folder,
    rates,
    search_share,
    seeds_of,
    training,
)
from lavi_bridge.running.progress import progress
from lavi_bridge.show.tables import aligned

TFLOPS = {"float32": 36.0, "bfloat16": 85.0}
"""TFLOP/s that training gets out of one H200, by the frozen models' precision: 64.2 TFLOP for 32
images of T5-Large × SD 1.4 at 18.2 images/s (the published code, as shipped) and at 42.6 (eager,
frozen models in bfloat16, pictures encoded in the step)."""
SAMPLING_TFLOPS = 240.0
"""The same for sampling 16 images at a time in bfloat16 (84 TFLOP an image at 2.88 images/s)."""
IMAGE_MB = 0.5
"""An image of 512 px on disk."""


@dataclass(frozen=True)
class RowPlan:
    """One row: sizes in GB, times in hours of one H200, over all seeds."""

    row: Row
    language: str
    """Id or folder; empty for an image model with its own encoder."""
    vision: str
    trained: int
    """Trained parameters."""
    steps: int
    training_hours: float
    sampling_hours: float
    memory_gb: float
    disk_gb: float
    """Bridges and images."""
    weights_gb: tuple[float, float]
    """Size of the language and of the image model, in float32."""


def plan(config: ReproduceConfig) -> list[RowPlan]:
    """Plan every row; only JSON files are read.

    Raises:
        BridgeError: a config is missing.
    """
    images = images_of(config)
    made: dict[tuple[object, ...], Plan] = {}
    rows = progress(rows_of(config.tables, full=config.full), desc="planning", unit="row")
    return [_row(row, config, images, made) for row in rows]


def images_of(config: ReproduceConfig) -> int:
    """Images that every row and seed draws."""
    settings = evaluation(rows_of(config.tables, full=config.full)[0], config, "", folder(config))
    total = 0
    for name in settings.suites:
        known = SUITES.get(name)
        count = known.count if known else len(load_suite(name, folder=settings.prompts))
        total += min(count, settings.limit or count) * (known.images if known else 1)
    return total


def _row(
    row: Row, config: ReproduceConfig, images: int, made: dict[tuple[object, ...], Plan]
) -> RowPlan:
    # an image model alone costs about what drawing with a bridge to it costs; its own encoder is
    # not counted
    like = row if row.trained else Row("", vision=row.vision)
    settings = training(like, config, seed=0, factor=1.0, out=folder(config))
    dtype = settings.dtype or ("bfloat16" if config.full else "float32")
    ranks = [
        settings.rank if rank is None else rank
        for rank in (settings.language_rank, settings.vision_rank)
    ]
    key = (settings.language, settings.vision, settings.adapter, *ranks, dtype)
    if key not in made:
        made[key] = make_plan(
            settings.language,
            settings.vision,
            adapter=settings.adapter,
            language_rank=ranks[0],
            vision_rank=ranks[1],
            resolution=settings.resolution,
            batch_size=settings.batch_size,
            dtype=dtype,
            checkpointing=False,
        )
    cost, seeds = made[key], len(seeds_of(row, config))
    pictures = settings.steps * settings.batch_size * settings.accumulate
    tried = len(rates(config, row.recipe))
    runs = seeds + (tried * search_share(config) if tried > 1 else 0)
    assert cost.training_tflop is not None
    assert cost.sampling_tflop is not None  # of the paper's models, which run on shapes alone
    hours = pictures * cost.training_tflop / TFLOPS[dtype] / 3600 * runs
    drawing = images * FULL_STEPS * cost.sampling_tflop / SAMPLING_TFLOPS / 3600 * seeds
    language_gb = cost.language_parameters * 4 / 1e9
    return RowPlan(
        row,
        language=settings.language if row.trained else "",
        vision=settings.vision,
        trained=cost.trained if row.trained else 0,
        steps=settings.steps if row.trained else 0,
        training_hours=hours if row.trained else 0.0,
        sampling_hours=drawing,
        memory_gb=cost.training_gb if row.trained else cost.sampling_gb,
        disk_gb=seeds * (images * IMAGE_MB / 1000 + (cost.bridge_gb if row.trained else 0.0)),
        weights_gb=(language_gb if row.trained else 0.0, cost.download_gb - language_gb),
    )


def table(config: ReproduceConfig, rows: list[RowPlan]) -> str:
    """The plan for people."""
    lines = [
        ["row", "language model", "image model", "trained", "steps", "GPU-hours", "memory", "disk"]
    ]
    for p in rows:
        lines.append(
            [
                p.row.slug,
                p.language or "its own",
                p.vision,
                f"{p.trained / 1e6:.1f} M" if p.trained else "–",
                f"{p.steps:,}" if p.steps else "–",
                f"{p.training_hours + p.sampling_hours:,.0f}",
                f"{p.memory_gb:.0f} GB",
                f"{p.disk_gb:.1f} GB",
            ]
        )
    training_hours = sum(p.training_hours for p in rows)
    sampling_hours = sum(p.sampling_hours for p in rows)
    models = {p.language: p.weights_gb[0] for p in rows} | {p.vision: p.weights_gb[1] for p in rows}
    return "\n".join(
        [
            aligned(lines),
            "",
            f"{len(rows)} rows, {config.seeds} seeds of each that is trained, "
            f"{images_of(config):,} images a row and seed",
            f"in all {training_hours + sampling_hours:,.0f} GPU-hours of one H200: "
            f"{training_hours:,.0f} to train, {sampling_hours:,.0f} to draw; scorers "
            "and the image models' own encoders come on top",
            f"disk: {sum(models.values()):,.0f} GB of base weights in float32, "
            f"{sum(p.disk_gb for p in rows):,.0f} GB of bridges and images",
            "hours are estimates: compute counted on the models' shapes, at "
            f"{TFLOPS['float32']:.0f} TFLOP/s in float32 (the paper's recipe) and "
            f"{TFLOPS['bfloat16']:.0f} in bfloat16, which is what one H200 was measured at",
            f"batches of {config.batch_size} are ours: the paper's size is not published",
        ]
    )
