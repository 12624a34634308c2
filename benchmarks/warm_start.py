"""Is a start without images worth it? Exact scores against diffusion steps and wall time.

    python benchmarks/warm_start.py run --rows table      # every start, by steps
    python benchmarks/warm_start.py run --rows minutes    # two minutes in all, with and without
    python benchmarks/warm_start.py report                # the tables of docs/warm-start.md

A row is one language model, one start and one seed; it trains through the very loop that users run
and is scored on the same prompts and seeds as all others. Rows that are done are kept: a run that
was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForTextEncoding, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from lavi_bridge.bridge import Bridge
from lavi_bridge.config import Match, TrainConfig
from lavi_bridge.locate import locate
from lavi_bridge.train.loop import Run
from lavi_bridge.zoo.demo import SAMPLING
from lavi_bridge.zoo.scorer import score
from lavi_bridge.zoo.world import CATEGORIES, evaluation_set

VISION = "zoo:tiny-sd"
MODELS = {"T5": "zoo:tiny-t5-large", "Llama": "zoo:tiny-llama"}
SEEDS = 3


@dataclass(frozen=True)
class Row:
    """One run of the comparison."""

    group: str
    language: str  # a key of MODELS, or CONTROL
    start: str  # neither, states, predictions, both
    seed: int
    warm: int  # steps on captions
    steps: int  # steps on pictures
    lr: float  # of these
    every: int  # steps between two scores

    @property
    def name(self) -> str:
        return f"{self.group}-{self.language}-{self.start}-{self.seed}".replace(" ", "_")


STARTS = {
    # start: steps on captions, then on pictures
    "states": (400, 400),
    "predictions": (120, 1),  # scored before its one step
    "both": (400, 1),
}
CONTROL = "untrained T5"


def table() -> Iterator[Row]:
    """Every start by steps; the control only where it has a chance, and for long."""
    for seed in range(SEEDS):
        for language in (*MODELS, CONTROL):
            for start, (warm, steps) in STARTS.items():
                if language == CONTROL and start != "states":
                    continue
                yield Row("table", language, start, seed, warm, steps, 3e-4, 200)


def minutes() -> Iterator[Row]:
    """Two minutes in all, each run with one core for itself (`OMP_NUM_THREADS=1`, two shares)."""
    for seed in range(SEEDS):
        for language in MODELS:
            # a fresh bridge can learn faster than one that must not forget its start
            yield Row("minutes", language, "neither", seed, 0, 270, 1e-3, 270)
            yield Row("minutes", language, "states", seed, 320, 90, 3e-4, 90)


GROUPS = {"table": table, "minutes": minutes}


def language(row: Row, out: Path) -> str:
    """Where the row's language model is; an untrained one is made in the same shape."""
    if not row.language.startswith("untrained"):
        return MODELS[row.language]
    source = locate(MODELS[row.language.removeprefix("untrained ")]).root
    folder = out / "models" / f"{row.language}-{row.seed}".replace(" ", "_")
    if not folder.exists():
        torch.manual_seed(row.seed)
        model = AutoModelForTextEncoding.from_config(AutoConfig.from_pretrained(source))
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return str(folder)


def run(row: Row, out: Path, prompts: int) -> None:
    """Train and score one row; leave `rows/NAME.json`."""
    done = out / "rows" / f"{row.name}.json"
    if done.exists():
        return
    folder = out / "runs" / row.name
    shutil.rmtree(folder, ignore_errors=True)
    match: Match = "states" if row.start == "neither" else row.start  # type: ignore[assignment]
    config = TrainConfig(
        language=language(row, out), vision=VISION, data="shapes", out=folder, rank=16,
        dropout=0.0, flip=False, warm_start=row.warm, warm_start_match=match, lr_warm_start=6e-3,
        steps=row.steps, batch_size=32, lr_adapter=row.lr, lr_language=row.lr, lr_vision=row.lr,
        schedule="cosine", warmup=20, sample_every=0, save_every=row.every, log_every=50,
        device="cpu", seed=row.seed,
    )  # fmt: skip
    training = Run(config)
    begun = time.perf_counter()
    training.train()
    seconds = time.perf_counter() - begun
    asked, _ = evaluation_set(prompts // len(CATEGORIES))
    right = {}
    for step in range(0, row.steps + 1, row.every):
        place = folder / ("bridge" if step == row.steps else f"step-{step}")
        if place.is_dir():
            bridge = Bridge.load(place, device="cpu")
            drawn = list(bridge.stream([p.text for p in asked], **SAMPLING))
            marks = score(drawn, [p.facts for p in asked])
            right[step] = "".join("01"[mark.exact] for mark in marks)
    report = folder / "warm-start" / "report.json"
    record = asdict(row) | {
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "right": right,
        "warm_start": json.loads(report.read_text("utf-8")) if report.exists() else None,
    }
    done.parent.mkdir(parents=True, exist_ok=True)
    done.write_text(json.dumps(record) + "\n", encoding="utf-8")
    shutil.rmtree(folder)
    shown = {step: round(marks.count("1") / len(marks), 3) for step, marks in right.items()}
    print(f"{row.name}: {shown} in {seconds:.0f} s", flush=True)


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % interval; values (seeds, prompts) are marks, or differences of two.

    Prompts and seeds are resampled 4,000 times, so that three lucky seeds do not pass for
    certainty.
    """
    rng = np.random.default_rng(0)
    by_prompt = values.mean(0)
    seeds, prompts = values.shape
    means = [
        values[rng.integers(0, seeds, seeds)][:, rng.integers(0, prompts, prompts)].mean()
        for _ in range(4000)
    ]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(by_prompt.mean()), float(low), float(high)


def load(out: Path) -> list[dict]:
    return [json.loads(p.read_text("utf-8")) for p in sorted((out / "rows").glob("*.json"))]


def marks(rows: list[dict], group: str, language: str, start: str, step: str) -> np.ndarray:
    found = [r for r in rows if (r["group"], r["language"], r["start"]) == (group, language, start)]
    found = sorted((r for r in found if step in r["right"]), key=lambda r: r["seed"])
    return np.array([[int(c) for c in r["right"][step]] for r in found])


def report(out: Path) -> None:
    """Print the tables in Markdown."""
    rows = load(out)
    for group in GROUPS:
        print(f"\n### {group}\n\n| language | start | steps | seeds | seconds | exact | "
              + " | ".join(CATEGORIES) + " |\n|" + "---|" * (6 + len(CATEGORIES)))  # fmt: skip
        names = dict.fromkeys((r["language"], r["start"]) for r in rows if r["group"] == group)
        for language, start in sorted(names):
            mine = [r for r in rows if (r["group"], r["language"], r["start"])
                    == (group, language, start)]  # fmt: skip
            seconds = np.mean([r["seconds"] for r in mine])
            for step in sorted({int(s) for r in mine for s in r["right"]}):
                values = marks(rows, group, language, start, str(step))
                mean, low, high = interval(values)
                parts = values.reshape(len(values), len(CATEGORIES), -1).mean((0, 2))
                cells = " | ".join(f"{part:.2f}" for part in parts)
                print(f"| {language} | {start} | {step} | {len(values)} | {seconds:.0f} | "
                      f"{mean:.3f} ({low:.3f}–{high:.3f}) | {cells} |")  # fmt: skip
    print("\n### paired differences\n")
    compared = [("minutes", (m, "states"), (m, "neither")) for m in MODELS]
    compared += [("table", (m, "states"), (CONTROL, "states")) for m in MODELS]
    for group, first, second in compared:
        a, b = (last(rows, group, *which) for which in (first, second))
        if count := min(len(a), len(b)):
            mean, low, high = interval(a[:count] - b[:count])
            title = " - ".join(f"{language} ({start})" for language, start in (first, second))
            print(f"- {group}: {title}: {mean:+.3f} ({low:+.3f} to {high:+.3f}), {count} seeds")


def last(rows: list[dict], group: str, language: str, start: str) -> np.ndarray:
    """The marks after the last step of a kind of row (seeds, prompts)."""
    found = [r for r in rows if (r["group"], r["language"], r["start"]) == (group, language, start)]
    steps = max((int(step) for r in found for step in r["right"]), default=0)
    return marks(rows, group, language, start, str(steps))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["run", "report"])
    parser.add_argument("--rows", choices=list(GROUPS), default="table")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--out", type=Path, default=Path("runs/warm-start"))
    parser.add_argument("--prompts", type=int, default=144)
    parser.add_argument("--share", default="1/1", help="this process's part, as 1/2 and 2/2")
    parser.add_argument("--steps", type=float, default=1.0, help="multiplies all steps (to try)")
    options = parser.parse_args()
    if options.what == "report":
        report(options.out)
        return
    disable_progress_bar()
    part, parts = map(int, options.share.split("/"))
    rows = [row for row in GROUPS[options.rows]() if options.only in row.name]
    for row in rows[part - 1 :: parts]:
        scaled = replace(row, warm=round(row.warm * options.steps),
                         steps=max(1, round(row.steps * options.steps)))  # fmt: skip
        run(scaled, options.out, options.prompts)


if __name__ == "__main__":
    main()
