"""Settings of `judge`; a field's docstring is its help text."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from lavi_bridge.config import Count, Dtype, Quantize, Settings


@dataclass
class JudgeConfig(Settings):
    """Ask a judge about pictures of the shapes world, whose truth is known, and write how it did.

    Pictures come in pairs that differ in one fact, and half of the right answers are Yes. All that
    is answered is kept: the same command goes on wherever it was stopped. Several processes:
    `torchrun --nproc_per_node 8 -m lavi_bridge judge …`."""

    model: Positional[str]
    """The judge: an image-and-text model, a Hub id (with @revision) or folder, as
    Qwen/Qwen3-VL-8B-Instruct."""
    out: Path = Path("runs/judge")
    """Folder for judge.html, judge.md, judge.json and the answers."""
    metrics: list[str] = field(default_factory=list)
    """In whose wording it is asked: vqascore about whole prompts, soft-tifa and dpg-judge about one
    fact (unset: all)."""
    categories: list[str] = field(default_factory=list)
    """What pairs may differ in: color, shape, texture, spatial, count, complex (unset: all)."""
    per_category: Count = 48
    """Pairs of pictures of each category."""
    seed: int = 0
    """Which scenes are drawn."""
    side: Count = 512
    """Pixels that the pictures, 64 a side, are enlarged to."""
    pictures: Path | None = None
    """Also pictures that image models drew: folder of an evaluation of the suites shapes,
    shapes-free or shapes-long. Their truth is the exact scorer's; as many right as wrong."""
    mode: Literal["faithful", "fixed"] = "faithful"
    """With the quirks of the published scripts, or as they are meant (`lavi-bridge list quirks`).
    """
    plan: bool = False
    """Print questions, memory and hours, which are computed, and stop."""
    dtype: Dtype | None = None
    """Precision of the judge (unset: bfloat16 on a GPU, float32 on a CPU)."""
    quantize: Quantize = "none"
    """Hold its layers in 8 or 4 bits (int8, nf4; bitsandbytes)."""
    device: str | None = None
    """cpu, cuda, cuda:1 … (unset: cuda where there is one)."""
    trust_remote_code: bool = False
    """Run code that comes with the judge (read it first)."""
