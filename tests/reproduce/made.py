"""What the tests of the tables share: settings, folders in the place of real models, records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lavi_bridge.files.locate import locate
from lavi_bridge.reproduce.options import ReproduceConfig
from lavi_bridge.reproduce.results import Results
from lavi_bridge.reproduce.rows import LANGUAGES, VISIONS, rows_of
from lavi_bridge.reproduce.settings import (
    Places,
    seeds_of,
)
from lavi_bridge.shapes.world import CATEGORIES

ALL = ["languages", "visions", "ablations"]


def settings(out: Path, *tables: str, **changes: Any) -> ReproduceConfig:
    return ReproduceConfig(tables=list(tables or ALL), out=out, **changes)  # type: ignore[arg-type]


def quick(out: Path, **changes: Any) -> ReproduceConfig:
    """The smallest whole run: one table, one seed, a prompt a category."""
    given = {"budget": "minutes", "seeds": 1, "prompts": 6, "scale": 0.1, "workers": 1}
    return settings(out, "visions", **given | changes)


def stand_ins() -> list[str]:
    """The bundled models in the place of the real ones."""
    others = (model for name, model in LANGUAGES.items() if name not in ("own", "clip", "minilm"))
    models = (*VISIONS.values(), *others)
    return [f"{model.full}={locate(model.zoo).root}" for model in models]


def fake(out: Path, scores: dict[str, list[float]], *, seeds: int = 3, spread: float = 0.0) -> Any:
    """Records of rows whose prompts are right with given probabilities, one a category."""
    config = settings(out, "languages", seeds=seeds, budget="minutes")
    rows = [row for row in rows_of(["languages"]) if row.slug in scores]
    for number, row in enumerate(rows):
        for seed in seeds_of(row, config):
            rng = np.random.default_rng([number, seed])
            shift = spread * (seed - 1)
            right = [float(rng.random() < p + shift) for p in scores[row.slug] for _ in range(64)]
            suite = {
                "prompts": "",
                "categories": [c for c in CATEGORIES for _ in range(64)],
                "scores": {
                    "shapes": [[x] for x in right],
                    "shapes-facts": [[0.4 + 0.6 * x] for x in right],
                },
                "distances": {"shapes-fd": 2.0 - sum(right) / len(right)},
            }
            look = {
                "categories": [c for c in CATEGORIES for _ in range(2)],
                "scores": {"shapes": [[0.25 * seed]] * 12},
            }
            record = {
                "suites": {"shapes": suite},
                "seconds": {"training": 1.0},
                "seed": seed,
                "on its way": {step: {"shapes": look} for step in ("0", "50", "100")},
                "parameters": {"adapter": 1, "language_lora": 1, "vision_lora": 1},
                "warm start": None,
                "pictures": {"steps": 100, "batch": 8},
                "rates": {"adapter": 1.0, "language": 1.0, "vision": 1.0},
                "factor": 1,
            }
            path = Places(out).result(row, seed)
            path.parent.mkdir(parents=True)
            Places(out).search(row).write_text('{"seconds": 1.0}')
            path.write_text(json.dumps(record))
    return Results(config, rows), {row.slug: row for row in rows}
