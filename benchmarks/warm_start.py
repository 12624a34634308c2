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

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.config import Match
from lavi_bridge.files.locate import locate
from lavi_bridge.shapes.scorer import score
from lavi_bridge.shapes.world import CATEGORIES, evaluation_set
from lavi_bridge.train.options import TrainConfig
from lavi_bridge.train.run import Run
from lavi_bridge.zoo.demo import SAMPLING

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


WARM_STEPS = {"neither": 0, "states": 300, "predictions": 120, "both": 240}
PICTURE_STEPS = 150
LONG = 300
"""Pictures after a warm start on states: where the trained models are held against the control."""
CONTROL = "untrained T5"


def table() -> Iterator[Row]:
    """Every start of every language model, the untrained one too, by steps on pictures."""
    for seed in range(SEEDS):
        for language in (*MODELS, CONTROL):
            for start, warm in WARM_STEPS.items():
                # a fresh bridge can learn faster than one that must not forget its start
                lr = 3e-4 if warm else 1e-3
                steps = LONG if start == "states" else PICTURE_STEPS
                yield Row("table", language, start, seed, warm, steps, lr, PICTURE_STEPS)


def minutes() -> Iterator[Row]:
    """Two minutes in all, each run with one core for itself (`OMP_NUM_THREADS=1`, two shares)."""
    for seed in range(SEEDS):
        for language in MODELS:
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


class Timed(Run):
    """The loop that users run, with the time and memory of its warm start noted."""

    warm_seconds = 0.0
    warm_peak = 0.0

    def _warm_start(self) -> None:
        forget_peak()
        begun = time.perf_counter()
        super()._warm_start()
        self.warm_seconds, self.warm_peak = time.perf_counter() - begun, peak()
        forget_peak()


def forget_peak() -> None:
    """Let Linux count this process's peak memory from here on."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """This process's peak memory in GB since then, the models and the interpreter included."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e6


def run(row: Row, out: Path, prompts: int) -> None:
    """Train and score one row; leave `rows/NAME.json`."""
    done = out / "rows" / f"{row.name}.json"
    if done.exists():
        return
    folder = out / "runs" / row.name
    shutil.rmtree(folder, ignore_errors=True)
    match: Match = "states" if row.start == "neither" else row.start  # type: ignore[assignment]
    config = TrainConfig(
        language=language(row, out),
        vision=VISION,
        data="shapes",
        out=folder,
        rank=16,
        dropout=0.0,
        flip=False,
        warm_start=row.warm,
        warm_start_match=match,
        lr_warm_start=6e-3,
        steps=row.steps,
        batch_size=32,
        lr_adapter=row.lr,
        lr_language=row.lr,
        lr_vision=row.lr,
        schedule="cosine",
        warmup=20,
        sample_every=0,
        save_every=row.every,
        keep=9,
        log_every=50,
        validate_every=0,
        tracker="none",
        device="cpu",
        seed=row.seed,
    )
    training = Timed(config)
    begun = time.perf_counter()
    training.train()
    seconds, memory = time.perf_counter() - begun, peak()
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
        "warm_seconds": round(training.warm_seconds, 1),
        "memory_gb": round(memory, 3),
        "warm_memory_gb": round(training.warm_peak, 3),
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
        print(
            f"\n### {group}\n\n| language | start | steps | seeds | seconds | GB | exact | "
            + " | ".join(CATEGORIES)
            + " |\n|"
            + "---|" * (7 + len(CATEGORIES))
        )
        names = dict.fromkeys((r["language"], r["start"]) for r in rows if r["group"] == group)
        for language, start in sorted(names):
            mine = [
                r
                for r in rows
                if (r["group"], r["language"], r["start"]) == (group, language, start)
            ]
            for step in sorted({int(s) for r in mine for s in r["right"]}):
                until = [spent(row, step) for row in mine]
                seconds, memory = (np.mean([u[i] for u in until]) for i in (0, 1))
                values = marks(rows, group, language, start, str(step))
                mean, low, high = interval(values)
                parts = values.reshape(len(values), len(CATEGORIES), -1).mean((0, 2))
                cells = " | ".join(f"{part:.2f}" for part in parts)
                print(
                    f"| {language} | {start} | {step} | {len(values)} | {seconds:.0f} | "
                    f"{memory:.2f} | {mean:.3f} ({low:.3f}–{high:.3f}) | {cells} |"
                )
    print("\n### paired differences\n")
    compared = [("minutes", (m, "states"), (m, "neither")) for m in MODELS]
    for m in MODELS:
        compared += [("table", (m, start), (m, "neither")) for start in WARM_STEPS][1:]
        compared += [("table", (m, start), (CONTROL, start)) for start in WARM_STEPS]
    for group, first, second in compared:
        if group == "minutes":  # equal time, not equal steps
            a, b = (last(rows, group, *which) for which in (first, second))
        else:
            shared = common(rows, group, first, second)
            a, b = (marks(rows, group, *which, shared) for which in (first, second))
        if count := min(len(a), len(b)):
            mean, low, high = interval(a[:count] - b[:count])
            title = " - ".join(f"{language} ({start})" for language, start in (first, second))
            print(f"- {group}: {title}: {mean:+.3f} ({low:+.3f} to {high:+.3f}), {count} seeds")


def spent(row: dict, step: int) -> tuple[float, float]:
    """Seconds until a step on pictures, and the peak memory in GB of that part of the run."""
    if step == 0:
        return row["warm_seconds"], row["warm_memory_gb"]
    on_pictures = (row["seconds"] - row["warm_seconds"]) * step / row["steps"]
    return row["warm_seconds"] + on_pictures, row["memory_gb"]


def last(rows: list[dict], group: str, language: str, start: str) -> np.ndarray:
    """The marks after the last step of a kind of row (seeds, prompts)."""
    found = [r for r in rows if (r["group"], r["language"], r["start"]) == (group, language, start)]
    steps = max((int(step) for r in found for step in r["right"]), default=0)
    return marks(rows, group, language, start, str(steps))


def common(rows: list[dict], group: str, *kinds: tuple[str, str]) -> str:
    """The last step on pictures that all kinds of row were scored at; "0" where there is none."""
    scored = [
        {int(step) for step in row["right"]}
        for language, start in kinds
        for row in rows
        if (row["group"], row["language"], row["start"]) == (group, language, start)
    ]
    return str(max(set.intersection(*scored), default=0)) if scored else "0"


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
        scaled = replace(
            row,
            warm=round(row.warm * options.steps),
            steps=max(1, round(row.steps * options.steps)),
        )
        run(scaled, options.out, options.prompts)


if __name__ == "__main__":
    main()
