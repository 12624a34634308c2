"""The whole story in minutes: two language models joined to an image model, trained and scored.

Everything runs through the same code as with real models; only the models are small. The exact
scorer tells how many of the prompts each picture follows in full.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from PIL.Image import Image
from transformers.utils.logging import disable_progress_bar

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.errors import BridgeError
from lavi_bridge.evaluate.statistics import Estimate, estimate, wilson
from lavi_bridge.files.atomic import write_text
from lavi_bridge.running.device import machine
from lavi_bridge.running.lock import LOCK, held, refuse_if_held
from lavi_bridge.running.progress import progress, whole
from lavi_bridge.shapes.scorer import score
from lavi_bridge.shapes.world import CATEGORIES, FactPrompt, evaluation_set
from lavi_bridge.show.html import data_url, polyline, render
from lavi_bridge.show.pictures import grid
from lavi_bridge.show.tables import aligned
from lavi_bridge.train.options import TrainConfig
from lavi_bridge.train.run import Run
from lavi_bridge.version import __version__

VISION = "zoo:tiny-sd"
SAMPLING: dict[str, Any] = {
    "steps": 20,
    "guidance": 4.0,
    "scheduler": "dpm++",
    "batch_size": 48,
    "seed": 0,
}
DRAWING, WARM_STEP, STEP = 0.21, 0.21, 1.0
"""Seconds of a picture, a step on captions and a step on pictures, in a run of `make demo` on two
cores: what counts is how they stand to each other."""
SHOWN = 4
"""Prompts of each category on the page; the grid shows one of each."""


@dataclass(frozen=True)
class Pair:
    """A language model to join, and how long to train it."""

    name: str
    language: str
    warm_start: int
    """Steps on captions alone."""
    steps: int
    """Steps on pictures."""


PAIRS = (
    Pair("T5", "zoo:tiny-t5-large", warm_start=600, steps=100),
    Pair("Llama", "zoo:tiny-llama", warm_start=500, steps=100),
)


@dataclass
class Result:
    """One model of the comparison with its pictures and scores."""

    name: str
    language: str
    step: int
    pictures: list[Image] = field(repr=False)
    right: list[bool] = field(repr=False)
    """Whether every fact of the prompt holds, picture by picture."""
    scores: dict[str, Estimate]
    """The fraction of right pictures: of "all", and in each category."""

    def record(self) -> dict[str, Any]:
        """The row of scores.json."""
        return {
            "name": self.name,
            "language": self.language,
            "vision": VISION,
            "step": self.step,
            "exact": {k: round(e.value, 4) for k, e in self.scores.items()},
            "interval": {
                k: [round(x, 4) for x in (e.low, e.high) if x is not None]
                for k, e in self.scores.items()
            },
        }


def run(out: Path, *, prompts: int = 144, scale: float = 1.0) -> list[Result]:
    """Train and score the bundled pairs; leave scores.json, grid.png and index.html in `out`.

    Args:
        prompts: how many to score; a sixth of each category.
        scale: multiplies the numbers of training steps.

    Raises:
        BridgeError: `out` holds something else than an earlier demo, or one that goes on at this
            moment; or there are too few prompts.
    """
    if prompts < len(CATEGORIES):
        raise BridgeError(f"the demo needs at least {len(CATEGORIES)} prompts, one a category")
    with held(out):
        return _run(out, prompts, scale)


def _run(out: Path, prompts: int, scale: float) -> list[Result]:
    """The demo, in a folder of its own."""
    disable_progress_bar()  # of loading: the models are small
    started = time.perf_counter()
    asked, _scenes = evaluation_set(prompts // len(CATEGORIES))
    print(f"{len(asked)} prompts, such as: {asked[0].text!r}; pictures of 64 px", flush=True)
    with whole(list(bars(len(asked), scale))):
        rows = list(compare(out, asked, scale))
    seconds = round(time.perf_counter() - started, 1)
    report(out, rows, asked, seconds)
    print(table(rows))
    draw = ["generate", str(out / "llama"), "a large striped red circle above a blue square"]
    print(
        f"\n{seconds:.0f} seconds. Look at:\n  {out / 'index.html'}\n  {out / 'grid.png'}\n"
        f"  {out / 'scores.json'}\nThen draw your own:\n  .venv/bin/lavi-bridge "
        f"{shlex.join(draw)}"
    )
    return rows


def compare(out: Path, asked: list[FactPrompt], scale: float) -> Iterator[Result]:
    """The image model alone, and every pair before and after its training."""
    yield judge("own encoder", f"{VISION}/text_encoder", 0, Bridge.own(VISION, device="cpu"), asked)
    for pair in PAIRS:
        config = settings(pair, out, scale)
        training = Run(config)
        yield judge(f"{pair.name}, untrained", pair.language, 0, training.bridge, asked)
        bridge = training.train()
        steps = config.warm_start + config.steps
        yield judge(f"{pair.name} bridge", pair.language, steps, bridge, asked)


def bars(prompts: int, scale: float) -> Iterator[tuple[str, float]]:
    """The progress bars of the demo in their order, with about how many seconds each takes."""
    yield "drawing: own encoder", prompts * DRAWING
    for pair in PAIRS:
        yield f"drawing: {pair.name}, untrained", prompts * DRAWING
        yield "warm start", pair.warm_start * scale * WARM_STEP
        yield "training", pair.steps * scale * STEP
        yield f"drawing: {pair.name} bridge", prompts * DRAWING


def settings(pair: Pair, out: Path, scale: float) -> TrainConfig:
    """The configuration of one training run of the demo."""
    return TrainConfig(
        language=pair.language,
        vision=VISION,
        data="shapes",
        out=fresh(out / pair.name.lower()),
        rank=16,
        dropout=0.0,  # the run is short
        flip=False,  # captions speak of left and right
        warm_start=max(1, round(pair.warm_start * scale)),
        warm_start_batch=40,
        steps=max(1, round(pair.steps * scale)),
        batch_size=32,
        lr_adapter=3e-4,
        lr_language=3e-4,
        lr_vision=3e-4,
        lr_warm_start=8e-3,
        schedule="cosine",
        warmup=20,
        sample_every=0,
        save_every=0,
        validate_every=0,
        tracker="none",
        device="cpu",
    )


def fresh(folder: Path) -> Path:
    """Make room for a run: an earlier one of the demo is replaced, anything else is kept.

    Raises:
        BridgeError: the folder holds something that is no training run, or one that goes on.
    """
    import shutil

    if folder.exists():
        refuse_if_held(folder)
        others = any(entry.name != LOCK for entry in folder.iterdir())
        if others and not (folder / "metrics.jsonl").is_file():
            raise BridgeError(f"'{folder}' holds no earlier demo; choose another --out")
        shutil.rmtree(folder)
    return folder


def judge(name: str, language: str, step: int, bridge: Bridge, asked: list[FactPrompt]) -> Result:
    """Draw every prompt with one seed each and score the pictures."""
    images = bridge.stream([prompt.text for prompt in asked], **SAMPLING)
    pictures = list(progress(images, total=len(asked), desc=f"drawing: {name}", unit="image"))
    right = [found.exact for found in score(pictures, [prompt.facts for prompt in asked])]
    return Result(
        name,
        language,
        step,
        pictures,
        right,
        fractions(right, [prompt.category for prompt in asked]),
    )


def fractions(right: Sequence[bool], categories: Sequence[str]) -> dict[str, Estimate]:
    """The fraction of pictures that are right, with its interval: of "all", and in each category.

    A category has Wilson's interval, for a bootstrap of a fraction of 0 or 1 has no width.
    """
    found = {"all": estimate([[float(x)] for x in right], categories)}
    for category in CATEGORIES:
        answers = [x for x, of in zip(right, categories, strict=True) if of == category]
        if answers:
            value = fmean(answers)
            low, high = wilson(value, len(answers))
            found[category] = Estimate(value, low, high, len(answers))
    return found


def report(out: Path, rows: list[Result], asked: list[FactPrompt], seconds: float) -> None:
    """Write scores.json, grid.png and index.html."""
    scores = {
        "machine": machine(),
        "seconds": seconds,
        "prompts": len(asked),
        "rows": [row.record() for row in rows],
    }
    write_text(out / "scores.json", json.dumps(scores, indent=2) + "\n")
    per_category = len(asked) // len(CATEGORIES)
    firsts = range(0, len(asked), per_category)
    picked = [[row.pictures[i] for row in rows] for i in firsts]
    labels = [asked[i].text for i in firsts]
    grid(picked, columns=[row.name for row in rows], labels=labels).save(out / "grid.png")
    shown = [i + k for i in firsts for k in range(min(SHOWN, per_category))]
    write_text(out / "index.html", page(out, rows, asked, shown, scores))


def page(
    out: Path, rows: list[Result], asked: list[FactPrompt], shown: list[int], scores: dict[str, Any]
) -> str:
    """One HTML page with everything inside it."""
    return render(
        "lavi_bridge.zoo",
        "demo.html",
        scores=scores,
        categories=["all", *CATEGORIES],
        curves=[curve(out / pair.name.lower() / "metrics.jsonl", pair.name) for pair in PAIRS],
        examples=[
            (
                asked[i].category,
                asked[i].text,
                [(data_url(row.pictures[i]), row.right[i]) for row in rows],
            )
            for i in shown
        ],
        version=__version__,
        llama=shlex.quote(str(out / "llama")),
    )


def curve(metrics: Path, name: str) -> dict[str, Any]:
    """The two training curves of a run as SVG points in a box of 300 × 100."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    series = {
        "mismatch with the own encoder, on captions alone": [
            x["mismatch"] for x in lines if "mismatch" in x
        ],
        "diffusion loss, on pictures": [x["loss"] for x in lines if "loss" in x],
    }
    return {"name": name, "series": {k: _line(v) for k, v in series.items() if v}}


def _line(values: list[float]) -> dict[str, Any]:
    """The points of a curve, and its first and last value for the labels."""
    top = max(values) or 1.0
    step = 300 / max(1, len(values) - 1)
    points = polyline([(i * step, 100 - 95 * v / top) for i, v in enumerate(values)])
    return {"points": points, "first": values[0], "last": values[-1]}


def table(rows: list[Result]) -> str:
    """The exact scores for the terminal."""
    columns = ["all", *CATEGORIES]
    body = [[row.name, *(f"{row.scores[c].value:.3f}" for c in columns)] for row in rows]
    return "\n" + aligned([["exact score", *columns], *body], "lr")
