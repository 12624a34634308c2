"""Why a bridge, in minutes: prompts as people tell them, read by three text encoders.

One image model draws them with its own encoder, which knows 79 words; with a small language model
that is joined to it before one's eyes; and with a real one (MiniLM) by a bridge that ships with the
package. None of the bridges has seen a picture. The exact scorer tells how many prompts are
followed in full.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
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
from lavi_bridge.metrics.shapes import facts_of
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.prompts.suites import load_suite
from lavi_bridge.running.device import machine
from lavi_bridge.running.lock import LOCK, held, refuse_if_held
from lavi_bridge.running.progress import progress, whole
from lavi_bridge.shapes.scorer import score
from lavi_bridge.shapes.world import CATEGORIES, FactPrompt, ShapesWorld
from lavi_bridge.show.html import data_url, polyline, render
from lavi_bridge.show.pictures import grid
from lavi_bridge.show.tables import aligned
from lavi_bridge.train.warm_start.pairs import Pair, fitting
from lavi_bridge.train.warm_start.warm_start import WarmStart
from lavi_bridge.version import __version__

VISION = "zoo:tiny-sd"
SMALL = "zoo:tiny-llama"
"""The language model that is joined before one's eyes; it knows the plain captions' words alone."""
REAL = "zoo:minilm-tiny-sd"
"""The bundled bridge to a real language model; docs/free-form.md says how it was made."""
SAMPLING: dict[str, Any] = {
    "steps": 20,
    "guidance": 4.0,
    "scheduler": "dpm++",
    "batch_size": 48,
    "seed": 0,
}
STEPS, PAIRS, TOKENS = 400, 8000, 64
DRAWING, STEP = 0.21, 0.25
"""Seconds of a picture and of a step in a run of `make demo` on two cores: what counts is how they
stand to each other."""
SHOWN = 4
"""Prompts of each category on the page; the grid shows one of each."""
SUITES = {"plain": "shapes", "free": "shapes-free"}
"""What is asked: the same scenes in the image model's own words, and as people tell them."""


@dataclass
class Result:
    """One encoder of the comparison on one kind of prompts, with its pictures and scores."""

    name: str
    language: str
    step: int
    prompts: str
    """Which: a key of SUITES."""
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
            "prompts": self.prompts,
            "exact": {k: round(e.value, 4) for k, e in self.scores.items()},
            "interval": {
                k: [round(x, 4) for x in (e.low, e.high) if x is not None]
                for k, e in self.scores.items()
            },
        }


def run(out: Path, *, prompts: int = 96, scale: float = 1.0) -> list[Result]:
    """Train, draw and score; leave scores.json, grid.png and index.html in `out`.

    Args:
        prompts: how many of either kind; a sixth of each category.
        scale: multiplies the number of training steps.

    Raises:
        BridgeError: `out` holds something else than an earlier demo, or one that goes on at this
            moment; or there are too few prompts.
    """
    if prompts < len(CATEGORIES):
        raise BridgeError(f"the demo needs at least {len(CATEGORIES)} prompts, one a category")
    with held(out):
        return _run(out, prompts // len(CATEGORIES) * len(CATEGORIES), scale)


def _run(out: Path, prompts: int, scale: float) -> list[Result]:
    """The demo, in a folder of its own."""
    disable_progress_bar()  # of loading: the models are small
    started = time.perf_counter()
    suites = {kind: load_suite(suite, limit=prompts) for kind, suite in SUITES.items()}
    asked = {
        kind: [FactPrompt(p.text, facts_of(p), p.category) for p in found]
        for kind, found in suites.items()
    }
    print(
        f"{prompts} prompts twice, plain ({asked['plain'][0].text!r}) and free "
        f"({asked['free'][0].text!r}); pictures of 64 px",
        flush=True,
    )
    losses: list[float] = []
    real, lacking = _real_bridge()
    if lacking:
        print(f"without MiniLM: {lacking}", flush=True)
    with whole(list(bars(len(asked["free"]), scale, real=real is not None))):
        rows = list(compare(out, asked, scale, real, losses))
    seconds = round(time.perf_counter() - started, 1)
    report(out, rows, suites["free"], seconds, losses, lacking)
    print(table(rows))
    best = REAL if real else str(out / "llama")
    draw = ["generate", best, "the boss asked for an aqua disc with a gold hoop"]
    print(
        f"\n{seconds:.0f} seconds. Look at:\n  {out / 'index.html'}\n  {out / 'grid.png'}\n"
        f"  {out / 'scores.json'}\nThen draw your own:\n  .venv/bin/lavi-bridge "
        f"{shlex.join(draw)}"
    )
    return rows


def compare(
    out: Path,
    asked: dict[str, list[FactPrompt]],
    scale: float,
    real: Bridge | None,
    losses: list[float],
) -> Iterator[Result]:
    """Every encoder on both kinds of prompts; `losses` gets those of the training."""
    own = Bridge.own(VISION, device="cpu")
    for kind, prompts in asked.items():
        yield judge("own encoder", f"{VISION}/text_encoder", 0, own, kind, prompts)
    small, steps = join(out / "llama", scale, losses)
    for kind, prompts in asked.items():
        yield judge("small Llama", SMALL, steps, small, kind, prompts)
    if real is not None:
        steps = int(real.training_summary["warm_start"])
        for kind, prompts in asked.items():
            yield judge("MiniLM", real.language.place.id, steps, real, kind, prompts)


def bars(prompts: int, scale: float, *, real: bool) -> Iterator[tuple[str, float]]:
    """The progress bars of the demo in their order, with about how many seconds each takes."""
    for name in ("own encoder", "small Llama", *(("MiniLM",) if real else ())):
        if name == "small Llama":
            yield "learning from pairs", STEPS * scale * STEP
        for kind in SUITES:
            yield f"drawing: {name}, {kind}", prompts * DRAWING


def join(folder: Path, scale: float, losses: list[float]) -> tuple[Bridge, int]:
    """Join the small language model from pairs of texts, without a picture, and save the bridge."""
    bridge = Bridge.connect(
        SMALL, VISION, rank=16, vision_rank=0, dropout=0.0, tokens=TOKENS, device="cpu"
    )
    world = ShapesWorld()
    told = [Pair(one.text, one.plain, one.links) for one in world.retold(PAIRS)]
    read = fitting(told, bridge)
    warm = WarmStart(
        bridge,
        world.captions(PAIRS),
        pairs=read,
        steps=max(1, round(STEPS * scale)),
        batch_size=40,
        lr=8e-3,
    )
    with closing(warm.run()) as steps:
        for step in progress(steps, total=warm.steps, desc="learning from pairs"):
            losses.append(step.loss)
    bridge.training_summary = {
        "steps": warm.step,
        "pairs": f"{len(read)} of {PAIRS} of the shapes world; the others are too long",
    }
    bridge.save(fresh(folder))
    return bridge, warm.step


def _real_bridge() -> tuple[Bridge | None, str | None]:
    """The bundled bridge to a real language model, or why it cannot be had."""
    try:
        return Bridge.load(REAL, device="cpu"), None
    except BridgeError as error:
        return None, str(error)


def fresh(folder: Path) -> Path:
    """Make room for a bridge: an earlier one is replaced, and a run of an earlier demo; others not.

    Raises:
        BridgeError: the folder holds something else, or a run that goes on.
    """
    import shutil

    if folder.exists():
        refuse_if_held(folder)
        others = any(entry.name != LOCK for entry in folder.iterdir())
        known = any((folder / name).is_file() for name in ("metrics.jsonl", "bridge.json"))
        if others and not known:
            raise BridgeError(f"'{folder}' holds no earlier demo; choose another --out")
        shutil.rmtree(folder)
    return folder


def judge(
    name: str, language: str, step: int, bridge: Bridge, kind: str, asked: list[FactPrompt]
) -> Result:
    """Draw every prompt with one seed each and score the pictures."""
    images = bridge.stream([prompt.text for prompt in asked], **SAMPLING)
    desc = f"drawing: {name}, {kind}"
    pictures = list(progress(images, total=len(asked), desc=desc, unit="image"))
    right = [found.exact for found in score(pictures, [prompt.facts for prompt in asked])]
    scores = fractions(right, [prompt.category for prompt in asked])
    return Result(name, language, step, kind, pictures, right, scores)


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


def report(
    out: Path,
    rows: list[Result],
    asked: list[Prompt],
    seconds: float,
    losses: list[float],
    lacking: str | None,
) -> None:
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
    # its own words once, to show what the image model can draw at all
    columns = [row for row in rows if row.prompts == "free" or row.name == "own encoder"]
    titles = [f"{row.name}, {row.prompts}" for row in columns]
    picked = [[row.pictures[i] for row in columns] for i in firsts]
    labels = [asked[i].text for i in firsts]
    grid(picked, columns=titles, labels=labels).save(out / "grid.png")
    shown = [i + k for i in firsts for k in range(min(SHOWN, per_category))]
    page = render(
        "lavi_bridge.zoo",
        "demo.html",
        scores=scores,
        categories=["all", *CATEGORIES],
        curve=curve(losses),
        titles=titles,
        examples=[
            (
                asked[i].category,
                asked[i].text,
                asked[i].short,
                [(data_url(row.pictures[i]), row.right[i]) for row in columns],
            )
            for i in shown
        ],
        lacking=lacking,
        version=__version__,
        bridge=shlex.quote(str(out / "llama") if lacking else REAL),
    )
    write_text(out / "index.html", page)


def curve(values: list[float]) -> dict[str, Any]:
    """A training curve as SVG points in a box of 300 × 100, with its ends for the labels."""
    top = max(values) or 1.0
    step = 300 / max(1, len(values) - 1)
    points = polyline([(i * step, 100 - 95 * v / top) for i, v in enumerate(values)])
    return {"points": points, "first": values[0], "last": values[-1]}


def table(rows: list[Result]) -> str:
    """The exact scores for the terminal."""
    columns = ["all", *CATEGORIES]
    body = [
        [f"{row.name}, {row.prompts}", *(f"{row.scores[c].value:.3f}" for c in columns)]
        for row in rows
    ]
    return "\n" + aligned([["exact score", *columns], *body], "lr")
