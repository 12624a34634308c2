"""What the image models of the zoo reach with their own text encoders: the table of docs/zoo.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import write_text
from lavi_bridge.files.locate import ZOO
from lavi_bridge.shapes.world import CATEGORIES, evaluation_set
from lavi_bridge.show.tables import markdown
from lavi_bridge.zoo.demo import judge
from lavi_bridge.zoo.making.image import Autoencoding


@dataclass(frozen=True)
class ZooScores:
    """One image model's scores."""

    name: str
    parameters: dict[str, int]
    """Parameters of backbone, text encoder and autoencoder."""
    psnr_db: float
    """The autoencoder's, on 512 scenes that no model was trained on."""
    exact: dict[str, float]
    interval: dict[str, tuple[float | None, float | None]]
    """95 %, by category."""


def score_zoo(
    names: Sequence[str] = (),
    *,
    prompts: int = 384,
    zoo: Path | None = None,
    json_file: Path | None = None,
) -> str:
    """Score image models and return a table in Markdown.

    Raises:
        BridgeError: there is no image model of a name, or too few prompts.
    """
    disable_progress_bar()
    root = zoo or ZOO
    known = sorted(path.parent.name for path in root.glob("*/model_index.json"))
    for name in names:
        if name not in known:
            raise BridgeError(f"no image model '{name}' in '{root}'; known: {', '.join(known)}")
    if prompts < len(CATEGORIES):
        raise BridgeError(f"scoring needs at least {len(CATEGORIES)} prompts, one a category")
    asked, _ = evaluation_set(prompts // len(CATEGORIES))
    rows = []
    for name in names or known:
        bridge = Bridge.own(root / name, device="cpu")
        vision = bridge.vision
        drawn = judge(name, name, 0, bridge, "plain", asked)
        parts = {"backbone": vision.backbone, "text": bridge.language.model, "vae": vision.vae}
        counts = {k: sum(p.numel() for p in part.parameters()) for k, part in parts.items()}
        psnr = Autoencoding(vision.vae).held_out()["psnr_db"]
        exact = {k: e.value for k, e in drawn.scores.items()}
        interval = {k: (e.low, e.high) for k, e in drawn.scores.items()}
        rows.append(ZooScores(name, counts, psnr, exact, interval))
    if json_file:
        record = {"prompts": len(asked), "models": [vars(row) for row in rows]}
        write_text(json_file, json.dumps(record, indent=2) + "\n")
    columns = ["all", *CATEGORIES]
    cells = []
    for row in rows:
        shown = [
            f"{row.exact[c]:.3f} ({row.interval[c][0]:.2f}–{row.interval[c][1]:.2f})"
            for c in columns
        ]
        total = sum(row.parameters.values()) / 1e6
        cells.append([row.name, f"{total:.2f} M", f"{row.psnr_db:.1f} dB", *shown])
    return markdown(["model", "parameters", "PSNR", *columns], cells)
