"""What does training cost beside its arithmetic? Each part against a baseline of the same run.

    python benchmarks/training.py loop     # a step / bare forward, backward and optimizer
    python benchmarks/training.py decode   # 1024-px JPEGs to 512-px tensors / published operations
    python benchmarks/training.py cache    # latents from the cache / decode and encode
    python benchmarks/training.py memory   # a step with gradient checkpointing / without
    python benchmarks/training.py quantized  # a frozen language model in 8 or 4 bits / in float32

The two sides take turns; figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Generator

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.config import Quantize
from lavi_bridge.data import TSV, Sample, normalise, to_pixels
from lavi_bridge.train.caching import fill, open_cache
from lavi_bridge.train.options import CacheConfig, TrainConfig
from lavi_bridge.train.run import Run

LANGUAGE, VISION = "zoo:tiny-llama", "zoo:tiny-sd"


def ratio(name: str, ours: list[float], baseline: list[float], unit: str) -> None:
    """Print medians and their ratios."""
    a, b = statistics.median(ours), statistics.median(baseline)
    print(
        f"{name}: {a:.4g} {unit}, baseline {b:.4g} {unit}; {b / a:.2f} times as fast, "
        f"{a / b:.3f} of its time ({len(ours)} rounds)"
    )


def loop(rounds: int, folder: Path, steps: int = 20, batch: int = 16) -> None:
    """Seconds per step: `lavi-bridge train` on cached latents, and nothing but the arithmetic."""
    data = write_shapes(folder, 256)
    fill(CacheConfig(VISION, str(data), folder / "latents", flip=False, device="cpu"))
    settings = TrainConfig(
        language=LANGUAGE,
        vision=VISION,
        data=str(data),
        out=folder / "run",
        rank=16,
        flip=False,
        cache=folder / "latents",
        steps=2 * steps,
        batch_size=batch,
        log_every=steps,
        sample_every=0,
        validate_every=0,
        save_every=0,
        device="cpu",
        tracker="none",
    )
    ours, bare = [], []
    for _ in range(rounds):
        shutil.rmtree(settings.out, ignore_errors=True)
        Run(settings).train()
        lines = (settings.out / "metrics.jsonl").read_text("utf-8").splitlines()
        last = [json.loads(line) for line in lines if '"loss"' in line][-1]
        ours.append(batch / last["images_per_second"])
        bare.append(bare_step(steps, batch))
    ratio("a step with cached latents", ours, bare, "s")


def bare_step(steps: int, batch: int) -> float:
    """Seconds of one step without an engine: the same models, losses and optimizer."""
    bridge = Bridge.connect(LANGUAGE, VISION, rank=16, device="cpu")
    parameters = bridge.trainable_parameters()
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    shape = bridge.vision.latent_shape(64, 64)
    latents = torch.randn(batch, *shape, generator=Generator().manual_seed(0))
    captions = ["a red circle left of a blue square"] * batch
    bridge.train()
    began = 0.0
    for step in range(2 * steps):
        if step == steps:
            began = time.perf_counter()
        loss = bridge.loss(latents=latents, captions=captions)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return (time.perf_counter() - began) / steps


def write_shapes(folder: Path, count: int) -> Path:
    """Pictures of the shapes world as a caption file."""
    from lavi_bridge.shapes.world import ShapesWorld

    world = ShapesWorld(count)
    for index in range(count):
        world.picture(index).save(folder / f"{index}.png")
    rows = "".join(f"{i}.png\t{world.caption(i)}\n" for i in range(count))
    (folder / "captions.tsv").write_text(rows, encoding="utf-8")
    return folder / "captions.tsv"


def photos(folder: Path, count: int, side: int) -> TSV:
    """Photo-like JPEGs: smooth colour, edges and grain."""
    rng = np.random.default_rng(0)
    for index in range(count):
        coarse = rng.integers(0, 256, (24, 24, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((side * 4 // 3, side), Image.Resampling.BICUBIC)
        grain = rng.normal(0, 6, (side, side * 4 // 3, 1))
        pixels = (np.asarray(picture, float) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.jpg", quality=92)
    rows = "".join(f"{i}.jpg\tphoto {i}\n" for i in range(count))
    (folder / "captions.tsv").write_text(rows, encoding="utf-8")
    return TSV(folder / "captions.tsv")


def published(path: Path, resolution: int) -> torch.Tensor:
    """The operations of the published loader: torchvision's Resize, CenterCrop, ToTensor and
    Normalize(0.5, 0.5) on a PIL image, written out."""
    picture = Image.open(path).convert("RGB")
    width, height = picture.size
    scale = resolution / min(width, height)
    size = [
        resolution if side == min(width, height) else int(side * scale) for side in (width, height)
    ]
    picture = picture.resize((size[0], size[1]), Image.Resampling.BILINEAR)
    left, top = round((size[0] - resolution) / 2), round((size[1] - resolution) / 2)
    picture = picture.crop((left, top, left + resolution, top + resolution))
    pixels = torch.from_numpy(np.array(picture, np.uint8)).permute(2, 0, 1).contiguous()
    return (pixels.to(torch.float32).div(255) - 0.5) / 0.5


def decode(rounds: int, folder: Path, side: int = 1024, resolution: int = 512) -> None:
    """Seconds per picture, one worker."""
    source = photos(folder, 24, side)
    ours, theirs, apart = [], [], []

    def fast(index: int) -> torch.Tensor:
        return to_pixels(source.picture(index, at_least=resolution), resolution)

    for _ in range(rounds):
        ours.append(timed(lambda: [fast(i) for i in range(len(source))]) / len(source))
        theirs.append(
            timed(lambda: [published(source.path(i), resolution) for i in range(len(source))])
            / len(source)
        )
    for index in range(len(source)):
        far = normalise(fast(index)) - published(source.path(index), resolution)
        apart.append(float(far.abs().mean()) * 127.5)
    ratio(f"{side}-px JPEG to {resolution}-px tensor", ours, theirs, "s")
    print(f"mean difference {statistics.mean(apart):.2f} grey levels")


def cache(rounds: int, folder: Path, resolution: int = 256) -> None:
    """Seconds per picture: latents drawn from the cache, and decoded and encoded anew.

    With an autoencoder of Stable Diffusion's size and random weights.
    """
    import diffusers

    from lavi_bridge.files.locate import locate
    from lavi_bridge.visions import load_vision

    source = photos(folder, 8, 1024)
    place = folder / "vision"
    shutil.copytree(locate(VISION).root, place)
    shutil.rmtree(place / "vae")
    torch.manual_seed(0)
    diffusers.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ).save_pretrained(place / "vae")
    settings = CacheConfig(
        str(place),
        str(folder / "captions.tsv"),
        folder / "latents",
        resolution=resolution,
        flip=False,
        device="cpu",
    )
    fill(settings)
    vision = load_vision(locate(place), dtype=torch.float32)
    held = open_cache(vision, source, settings, [(resolution, resolution)])
    assert held is not None

    def cached(index: int) -> torch.Tensor:
        moments = held[Sample(index, False)]
        assert moments.std is not None
        return vision.draw(moments.mean[None], moments.std[None])

    def anew(index: int) -> torch.Tensor:
        pixels = to_pixels(source.picture(index, at_least=resolution), resolution)
        return vision.encode(normalise(pixels[None]))

    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(timed(lambda: [cached(i) for i in range(len(source))]) / len(source))
        theirs.append(timed(lambda: [anew(i) for i in range(4)]) / 4)
    ratio(f"latents of a {resolution}-px picture", ours, theirs, "s")


def memory(rounds: int, folder: Path, batch: int = 256) -> None:
    """Peak memory and seconds of a step of many small pictures, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    found: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for _ in range(rounds):
        for checkpointing in found:
            with context.Pool(1) as pool:
                found[checkpointing].append(pool.apply(one_step, (batch, checkpointing)))
    for number, name, unit in ((0, "memory that a step adds", "GB"), (1, "a step", "s")):
        kept, anew = ([figures[number] for figures in found[side]] for side in (False, True))
        ratio(f"{name}, with checkpointing", anew, kept, unit)


def one_step(batch: int, checkpointing: bool) -> tuple[float, float]:
    """GB above what the process had before, and seconds."""
    bridge = Bridge.connect(LANGUAGE, VISION, rank=16, device="cpu")
    if checkpointing:
        bridge.checkpoint_activations()
    bridge.train()
    latents = torch.randn(batch, *bridge.vision.latent_shape(64, 64))
    captions = ["a red circle left of a blue square"] * batch
    bridge.loss(latents=latents[:2], captions=captions[:2]).backward()
    Path("/proc/self/clear_refs").write_text("5")  # count the peak from here on
    before, began = resident("VmRSS"), time.perf_counter()
    bridge.loss(latents=latents, captions=captions).backward()
    return resident("VmHWM") - before, time.perf_counter() - began


def quantized(rounds: int, folder: Path) -> None:
    """Memory that a language model of 300 M parameters takes, and seconds of a step of 8 captions.

    Llama's architecture with random weights under LoRA, forward and backward; each in a process of
    its own.
    """
    import transformers

    from lavi_bridge.testing import make_tokenizer

    config = transformers.LlamaConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=16,
        num_attention_heads=16,
        vocab_size=8192,
    )
    torch.manual_seed(0)
    transformers.LlamaModel(config).to(torch.bfloat16).save_pretrained(folder / "llama")
    make_tokenizer(folder / "llama")
    context = multiprocessing.get_context("spawn")
    ways: list[tuple[Quantize, str]] = [
        ("none", "float32"),
        ("none", "bfloat16"),
        ("int8", "bfloat16"),
        ("nf4", "bfloat16"),
    ]
    found: dict[tuple[Quantize, str], list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            with context.Pool(1) as pool:
                found[way].append(pool.apply(one_reading, (folder / "llama", *way)))
    for way in ways[1:]:
        for number, name, unit in (
            (0, "memory of the language model", "GB"),
            (1, "its part of a step", "s"),
        ):
            ours, plain = ([figures[number] for figures in found[w]] for w in (way, ways[0]))
            ratio(f"{name}, {way[0]} × {way[1]}", ours, plain, unit)


def one_reading(folder: Path, quantize: Quantize, dtype: str) -> tuple[float, float]:
    """GB that the model occupies (weights and tables), and seconds of forward and backward."""
    from lavi_bridge.bridge.parts import inject
    from lavi_bridge.config import LoRA
    from lavi_bridge.files.locate import locate
    from lavi_bridge.languages import load_language

    language = load_language(locate(folder), dtype=getattr(torch, dtype), quantize=quantize)
    model = language.model
    tensors = [*model.parameters(), *model.buffers()]
    tensors += [state for module in model.modules() for state in _tables(module)]
    held = sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e9
    inject(language, LoRA(32, language.lora_targets))
    language.train()
    ids = language.tokenize(["a red circle left of a blue square"] * 8, 77).ids
    language.hidden(ids).float().square().mean().backward()
    began = time.perf_counter()
    language.hidden(ids).float().square().mean().backward()
    return held, time.perf_counter() - began


def _tables(module: torch.nn.Module) -> list[torch.Tensor]:
    """Scales that bitsandbytes keeps beside a quantised weight."""
    weight = getattr(module, "weight", None)
    state = getattr(weight, "quant_state", None)
    found = [state.absmax, state.code] if state is not None else [getattr(weight, "SCB", None)]
    return [tensor for tensor in found if isinstance(tensor, torch.Tensor)]


def resident(kind: str) -> float:
    """A figure of this process's memory, in GB (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{kind}:")[1].split()[0]) / 1e6


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


Part = Callable[[int, Path], None]
PARTS: dict[str, Part] = {
    "loop": loop,
    "decode": decode,
    "cache": cache,
    "memory": memory,
    "quantized": quantized,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)} (unset: all)")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"unknown part '{unknown.pop()}'; known: {', '.join(PARTS)}")
    for part in options.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[part](options.rounds, Path(folder))


if __name__ == "__main__":
    main()
