"""Images per second and memory of training: this engine beside its own `paper` mode, pair by pair.

    python benchmarks/throughput.py                   # real sizes, random weights, on a GPU
    python benchmarks/throughput.py --device cpu      # the bundled models, to try the script
    python benchmarks/throughput.py --rows sd-32-paper sd-32-blocks
    python benchmarks/throughput.py --contiguous      # without channels last

Rows and goals are those of the table measured for the published code on one H200 (512 px, rank 32,
data on the GPU). Every row runs in a process of its own: first step, then the median of `--steps`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests import real

from lavi_bridge import Bridge
from lavi_bridge.config import Compile, Quantize
from lavi_bridge.running.blocks import compile_blocks
from lavi_bridge.testing import make_tokenizer
from lavi_bridge.train.optimizer import make_optimizer
from lavi_bridge.train.options import TrainConfig

CAPTION = "a photo of a red apple on a wooden table beside an open book, in soft morning light"


@dataclass(frozen=True)
class Row:
    """One measurement."""

    pair: str
    batch: int
    mode: str
    """`paper` is float32, encoding in the step; all others hold the frozen models in bfloat16."""
    published: float | None = None
    """Images/s of the published code on one H200: as shipped beside `paper`, else its best."""
    goal: float | None = None
    """Images/s, or with checkpointing and quantisation GB, that this engine must reach there."""

    @property
    def name(self) -> str:
        return f"{self.pair}-{self.batch}-{self.mode}"


ROWS = [
    # pair, batch, mode, published on an H200, goal there
    Row("sd", 1, "paper", 2.8),
    Row("sd", 1, "graphs", 2.8, 20),
    Row("sd", 8, "paper", 14.8),
    Row("sd", 8, "checkpointing", 14.8, 6.2),
    Row("sd", 32, "paper", 18.2),
    Row("sd", 32, "cached", 45.0),
    Row("sd", 32, "blocks", 45.0, 90),
    Row("pixart", 32, "paper", 11.0),
    Row("pixart", 32, "blocks", 44.4, 80),
    Row("llama", 8, "paper", 16.4),
    Row("llama", 8, "nf4", 16.4, 16),
    Row("llama", 16, "blocks", 34.9, 50),
]
PAIRS = {
    # name: language and its config, vision; and what stands for them on a CPU
    "sd": (real.T5_LARGE, real.stable_diffusion, "zoo:tiny-t5-large", "zoo:tiny-sd"),
    "pixart": (real.T5_LARGE, real.pixart, "zoo:tiny-t5-large", "zoo:tiny-pixart"),
    "llama": (real.LLAMA2_7B, real.stable_diffusion, "zoo:tiny-llama", "zoo:tiny-sd"),
}


def make_bridge(row: Row, folder: Path, device: torch.device) -> Bridge:
    """The pair with random weights, on the GPU straight away; on a CPU the bundled one."""
    config, write_vision, *bundled = PAIRS[row.pair]
    quantize: Quantize = "nf4" if row.mode == "nf4" else "none"
    dtype = torch.float32 if row.mode == "paper" or device.type == "cpu" else torch.bfloat16
    if device.type == "cpu":
        return Bridge.connect(*bundled, rank=32, device=device, quantize=quantize, dtype=dtype)
    language = real.language(folder / "language", config)
    make_tokenizer(language)
    vision = write_vision(folder / "vision")
    bridge = Bridge.outline(language, vision, language_rank=0 if quantize == "nf4" else 32)
    materialise(bridge, dtype, device)
    if quantize == "nf4":  # bitsandbytes quantises what it loads
        from lavi_bridge.bridge.parts import inject
        from lavi_bridge.config import LoRA
        from lavi_bridge.files.locate import locate
        from lavi_bridge.languages import load_language

        bridge.language.model.save_pretrained(language)
        whole = bridge.language
        bridge.language = load_language(
            locate(language), dtype=dtype, quantize="nf4", device=device
        )
        inject(bridge.language, LoRA(32, whole.lora_targets, 0.1))
        del whole
    else:
        from lavi_bridge.languages.loading.tokenizer import load_tokenizer

        bridge.language.tokenizer = load_tokenizer(bridge.language.place)
    return bridge


def materialise(bridge: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Random weights in place of outlines: trained ones in float32, frozen ones in `dtype`."""
    for module in bridge.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            kind = torch.float32 if parameter.requires_grad else dtype
            value = torch.randn(parameter.shape, device=device, dtype=kind) * 0.02
            fresh = nn.Parameter(value, requires_grad=parameter.requires_grad)
            setattr(module, name, fresh)
        for name, buffer in list(module.named_buffers(recurse=False)):
            value = torch.full(buffer.shape, 0.1, device=device).to(buffer.dtype)
            setattr(module, name, value)


def measure(row: Row, device_name: str, steps: int, contiguous: bool) -> dict[str, Any]:
    """Images/s, seconds of the first step, peak GB."""
    device = torch.device(device_name)
    paper = row.mode == "paper"
    if not paper:
        torch.set_float32_matmul_precision("high")  # the trained layers' products
    batch = row.batch if device.type == "cuda" else min(row.batch, 4)
    with tempfile.TemporaryDirectory() as folder:
        bridge = make_bridge(row, Path(folder), device)
    if contiguous:
        bridge.vision.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    if row.mode == "checkpointing":
        bridge.checkpoint_activations()
    models = [bridge.language.model, bridge.adapter, bridge.vision.backbone]
    ways: dict[str, Compile] = {"blocks": "blocks", "graphs": "graphs"}
    how = ways.get(row.mode, "none")
    compile_blocks(models, how)
    bridge.train()
    parameters = bridge.trainable_parameters()
    settings = TrainConfig(language="", vision="", data="", out=Path())
    optimizer = make_optimizer(settings, [{"params": parameters, "lr": 1e-4}], device)
    side = bridge.vision.resolution
    data: dict[str, Any] = {"captions": [CAPTION] * batch}
    if paper:
        data["pixels"] = torch.rand(batch, 3, side, side, device=device) * 2 - 1
    else:
        shape = bridge.vision.latent_shape(side, side)
        data["latents"] = torch.randn(batch, *shape, device=device)
        data["trim"] = how == "none"
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    def step(number: int) -> float:
        began = time.perf_counter()
        if how == "graphs":
            torch.compiler.cudagraph_mark_step_begin()
        torch.manual_seed(number)
        generators = [Generator().manual_seed(number * batch + i) for i in range(batch)]
        bridge.loss(**data, generator=generators).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    first = step(0)
    for number in range(1, 4):
        step(number)
    taken = statistics.median(step(number) for number in range(4, 4 + steps))
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None
    return {"images_per_second": batch / taken, "first_step": first, "gb": peak, "batch": batch}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--rows",
        nargs="*",
        choices=[row.name for row in ROWS],
        metavar="ROW",
        help=f"of {' '.join(row.name for row in ROWS)} (unset: all)",
    )
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each row")
    parser.add_argument(
        "--contiguous", action="store_true", help="the image model as it came, not channels last"
    )
    parser.add_argument("--out", type=Path, help="a JSON line a row, for what comes after")
    options = parser.parse_args()
    where = torch.cuda.get_device_name() if options.device.startswith("cuda") else "CPU, bundled"
    print(f"{where}; torch {torch.__version__}")
    print(f"{'row':20} {'images/s':>9} {'first step':>11} {'peak GB':>8}  published  goal (H200)")
    context = multiprocessing.get_context("spawn")
    for row in ROWS:
        if options.rows and row.name not in options.rows:
            continue
        try:
            with context.Pool(1) as pool:
                given = row, options.device, options.steps, options.contiguous
                found = pool.apply(measure, given)
        except torch.OutOfMemoryError:
            print(f"{row.name:20} does not fit")
            continue
        gb = f"{found['gb']:8.1f}" if found["gb"] is not None else f"{'-':>8}"
        unit = "GB" if row.mode in ("checkpointing", "nf4") else "images/s"
        goal = f"{row.goal} {unit}" if row.goal else ""
        print(
            f"{row.name:20} {found['images_per_second']:9.1f} {found['first_step']:9.1f} s {gb}"
            f"  {row.published or '':9}  {goal}",
            flush=True,
        )
        if options.out:
            with options.out.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"row": row.name, "where": where} | found) + "\n")


if __name__ == "__main__":
    main()
