"""How often the host waits for the GPU, counted on a simulated one: a step of training, a picture.

    python benchmarks/host_waits.py                              # this tree
    PYTHONPATH=OTHER/src python benchmarks/host_waits.py         # another one laid out like it
    python benchmarks/host_waits.py --lines                      # and which lines wait

Tiny models of the real classes; counted are steps past the first ones (whose guards look at every
weight), without those that log. Two processes are one that is told of two: only what it says to the
others is counted, in a group of its own. Counts, no times: nothing here knows a GPU's speed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState
from PIL import Image
from tests.fake_cuda import FakeCuda

from lavi_bridge import Bridge, testing
from lavi_bridge.running.device import Agreement
from lavi_bridge.train import run as loop
from lavi_bridge.train.accelerator import PATIENCE
from lavi_bridge.train.loss import Loss
from lavi_bridge.train.options import TrainConfig
from lavi_bridge.train.unreadable import Unreadable
from lavi_bridge.visions.noise.process import Diffusion, Flow

STEPS, SKIPPED = 6, 4
"""Steps of a run, and those before the counted ones begin."""
RUNS: dict[str, tuple[dict[str, str], int]] = {
    "SD, from pixels": ({"vision": "sd"}, 1),
    "SD, from a cache": ({"vision": "sd", "cache": "latents"}, 1),
    "PixArt with T5": ({"vision": "pixart-alpha"}, 1),
    "PixArt with T5, two processes": ({"vision": "pixart-alpha"}, 2),
    "PixArt, 1024 px, with T5": ({"vision": "pixart-alpha-1024"}, 1),
    "PixArt with Llama": ({"vision": "pixart-alpha", "language": "llama"}, 1),
    "PixArt with Gemma 3": ({"vision": "pixart-alpha", "language": "gemma3"}, 1),
    "SD with Llama": ({"vision": "sd", "language": "llama"}, 1),
    "SD with GPT-2": ({"vision": "sd", "language": "gpt2"}, 1),
    "Sana with T5": ({"vision": "sana"}, 1),
}


def model(folder: Path, name: str) -> str:
    """A tiny model by name, made at first use."""
    if not (folder / name).exists():
        make = testing.make_language if name in testing.LANGUAGES else testing.make_vision
        make(folder / name, name)
    return str(folder / name)


def pictures(folder: Path) -> Path:
    """Eight pictures with captions of different lengths."""
    rng = np.random.default_rng(0)
    for number in range(8):
        values = rng.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(values).save(folder / f"{number}.png")
    path = folder / "captions.tsv"
    lines = [f"{n}.png\ta picture{' of a wall' * (n % 3)}\n" for n in range(8)]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def training(gpu: FakeCuda, folder: Path, about: dict[str, str], processes: int) -> Counter[Any]:
    """Waits of the last steps of a short run, by line."""
    AcceleratorState._reset_state(reset_partial_state=True)
    out = Path(tempfile.mkdtemp(dir=folder))
    options: dict[str, Any] = {k: model(folder, v) for k, v in about.items() if k != "cache"}
    if "cache" in about:
        options["cache"] = out / about["cache"]
    given: dict[str, Any] = {
        "language": model(folder, "t5"),
        "data": str(folder / "captions.tsv"),
        "out": out / "run",
        "rank": 2,
        "steps": STEPS + 1,
        "batch_size": 2,
        "log_every": 1000,
        "sample_every": 0,
        "validate_every": 0,
        "save_every": 0,
        "flip": False,
        "device": "cuda",
        "tracker": "none",
    }
    settings = TrainConfig(**(given | options))
    counted: list[Counter[Any]] = []
    run = loop.Run(settings)
    run.processes = processes
    run.agreed = Agreement(processes, patience=PATIENCE)
    run.unreadable = Unreadable(
        run.config.out / "bad.txt",
        pictures=len(run.source),
        share=0.01,
        processes=processes,
        main=True,
    )
    run.loss = Loss(run.bridge, run.examples, run.unreadable, run.config)
    add = loop.Meter.add

    def noted(meter: loop.Meter, loss: torch.Tensor) -> None:
        """Once a step; the counts so far."""
        add(meter, loss)
        counted.append(gpu.waits.copy())

    loop.Meter.add = noted  # type: ignore[method-assign, assignment]
    try:
        with contextlib.redirect_stdout(sys.stderr):  # its summary
            run.train()
    finally:
        loop.Meter.add = add  # type: ignore[method-assign]
    return counted[STEPS - 1] - counted[SKIPPED - 1]


def sampling(gpu: FakeCuda, folder: Path, vision: str, sampler: str) -> Counter[Any]:
    """Waits of ten steps, without the encoding before and the decoding after them."""
    bridge = Bridge.connect(model(folder, "t5"), model(folder, vision), rank=2, device="cuda")
    text, null = bridge.encode("a red wall"), bridge.encode("")
    side = bridge.vision.resolution
    latents = torch.randn(1, *bridge.vision.latent_shape(side, side), device="cuda")
    with torch.no_grad():
        gpu.reset()
        list(
            bridge.sample(
                text,
                null,
                latents=latents,
                scheduler=sampler,
                steps=10,
                generators=[torch.Generator().manual_seed(0)],
            )
        )
    return gpu.waits.copy()


def show(name: str, waits: Counter[Any], steps: int, lines: bool) -> None:
    print(f"| {name} | {waits.total() / steps:g} |", flush=True)
    for (kind, line), number in waits.most_common() if lines else ():
        print(f"| · {kind} {line} | {number / steps:g} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lines", action="store_true", help="also the lines that wait")
    parser.add_argument("--only", choices=["training", "sampling"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    with tempfile.TemporaryDirectory() as name, FakeCuda() as gpu:
        folder = Path(name)
        pictures(folder)
        if options.only != "sampling":
            print("| training | waits a step |\n|---|---|")
            for title, (about, processes) in RUNS.items():
                found = training(gpu, folder, about, processes)
                show(title, found, STEPS - SKIPPED, options.lines)
        if options.only != "training":
            print("\n| sampling | waits in 10 steps |\n|---|---|")
            for vision, kind in (("sd", Diffusion), ("sana", Flow)):
                for sampler in kind.samplers:
                    title = f"{vision}, {sampler}"
                    show(title, sampling(gpu, folder, vision, sampler), 1, options.lines)


if __name__ == "__main__":
    main()
