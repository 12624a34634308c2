"""What do the measures of quality cost: networks of real sizes with random weights, and distances.

    python benchmarks/quality.py extract      # processor seconds and GB of each network, a picture
    python benchmarks/quality.py distances    # seconds and GB of each distance and of its error
    python benchmarks/quality.py hpsv3        # the backbone of HPSv3, by its layers

Each row is a process of its own, so that its memory is its own; one thread; processor time, which
other work on the machine hardly moves.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lavi_bridge.metrics import Distance, Score
from lavi_bridge.metrics.cmmd import CMMD, gaussian, gaussian_distance, gaussian_error
from lavi_bridge.metrics.dino import FDDINOv2
from lavi_bridge.metrics.distances import (
    FID,
    frechet_distance,
    frechet_error,
    kernel_distance,
    kernel_error,
)
from lavi_bridge.metrics.inception.network import Inception
from lavi_bridge.metrics.jackknife import groups_of
from lavi_bridge.metrics.mind import sliced_distance, sliced_error
from lavi_bridge.metrics.pickscore import PickScore
from lavi_bridge.prompts.prompt import Prompt

BATCH = 2
SIZES = {"fréchet 2,048": (2500, 2048), "fréchet 1,024": (2500, 1024), "kid": (2500, 2048)}
SIZES |= {"mind": (2500, 2048), "cmmd": (5000, 768), "cmmd, whole matrices": (5000, 768)}
DISTANCES: dict[str, tuple[Callable[[Tensor, Tensor], object], Callable[..., float] | None]] = {
    "fréchet 2,048": (frechet_distance, frechet_error),
    "fréchet 1,024": (frechet_distance, frechet_error),
    "kid": (kernel_distance, kernel_error),
    "mind": (sliced_distance, sliced_error),
    "cmmd": (gaussian_distance, gaussian_error),
}


def whole(x: Tensor, y: Tensor) -> float:
    """CMMD with each matrix in memory at once, as the published code has it."""
    parts = [gaussian(a, b).mean().item() for a, b in ((x, x), (y, y), (x, y))]
    return 1000 * (parts[0] + parts[1] - 2 * parts[2])


DISTANCES["cmmd, whole matrices"] = whole, None


def clip(folder: Path, side: int, patch: int, width: int, layers: int, projection: int) -> Path:
    """A CLIP with random weights, its text half that of the size's own."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    letters = [chr(n) for n in range(33, 127)]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[]).save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    ).save_pretrained(folder)
    large = width > 1024
    text = {
        "hidden_size": 1024 if large else 768,
        "intermediate_size": 4096 if large else 3072,
        "num_hidden_layers": 24 if large else 12,
        "num_attention_heads": 16 if large else 12,
        "bos_token_id": len(words) - 2,
        "eos_token_id": len(words) - 1,
    }
    vision = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "patch_size": patch,
        "image_size": side,
    }
    config = CLIPConfig(projection_dim=projection, text_config=text, vision_config=vision)
    with torch.device("meta"):
        model = CLIPModel(config)
    return saved(model, folder)


def dino(folder: Path) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=518,
        patch_size=14,
    )
    with torch.device("meta"):
        model = Dinov2Model(config)
    return saved(model, folder)


def saved(model: torch.nn.Module, folder: Path) -> Path:
    """The model with small random weights; drawing the usual ones takes minutes."""
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.uniform_(-0.02, 0.02, generator=generator)
    for name, buffer in model.named_buffers():
        if name.endswith("position_ids"):
            buffer.copy_(torch.arange(buffer.numel()).expand_as(buffer))
    model.save_pretrained(folder)  # type: ignore[operator]
    return folder


def network(name: str, folder: Path) -> Distance | Score:
    if name == "inception":
        model = Inception().eval()
        return FID(extractor=model, device="cpu")
    if name == "dinov2":
        return FDDINOv2(scorer=dino(folder), device="cpu")
    if name == "clip 336":
        return CMMD(scorer=clip(folder, 336, 14, 1024, 24, 768), device="cpu")
    return PickScore(scorer=clip(folder, 224, 14, 1280, 32, 1024), device="cpu")


def extract(name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (BATCH, 512, 512, 3), dtype=np.uint8)
    images = [Image.fromarray(one) for one in noise]
    prompts = [Prompt(str(n), f"a picture of {n} cats") for n in range(BATCH)]
    with tempfile.TemporaryDirectory() as folder:
        metric = network(name, Path(folder))

        def once() -> None:
            fresh = [image.copy() for image in images]  # embeddings of the latest are kept
            if isinstance(metric, Distance):
                metric.features(fresh)
            else:
                metric(fresh, prompts)

        once()
        seconds = min(spent(once) for _ in range(2))
    print(f"{name:12} {seconds / BATCH:6.2f} s a picture, {peak():.1f} GB at most", flush=True)


def distance(name: str) -> None:
    count, width = SIZES[name]
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(count, width, generator=generator).abs() for _ in range(2))
    if name.startswith("cmmd"):
        x, y = (torch.nn.functional.normalize(rows) for rows in (x, y))
    find, error = DISTANCES[name]
    found: list[object] = []
    before = peak()
    text = f"{name:20} {spent(lambda: found.append(find(x, y))):6.1f} s"
    memory = peak() - before
    if error is not None:
        groups = groups_of([1] * count)
        text += f", its error {spent(lambda: error(x, y, groups)):6.1f} s"
    print(f"{text}, {memory:.2f} GB beside the features ({found[0]})", flush=True)


def backbone(layers: int) -> tuple[torch.nn.Module, int]:
    """HPSv3's Qwen2-VL at its real widths, with so many of its 28 language layers, and the token
    that stands for a part of an image."""
    from transformers import Qwen2VLConfig, Qwen2VLModel
    from transformers.initialization import no_init_weights

    text = {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "num_hidden_layers": layers,
        "vocab_size": 152_064,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    }
    vision = {"depth": 32, "embed_dim": 1280, "hidden_size": 3584, "num_heads": 16}
    config = Qwen2VLConfig(text_config=text, vision_config=vision)
    with no_init_weights():  # drawing the usual ones takes minutes
        model = Qwen2VLModel(config).eval()
    for parameter in model.parameters():
        parameter.data.uniform_(-0.02, 0.02)
    return model, int(config.image_token_id)


def by_layers(name: str) -> None:
    """Time a picture of 448 px and 830 tokens in all through one and through three layers."""
    layers = int(name)
    with torch.no_grad():
        model, pad = backbone(layers)
        image = torch.randn(1024, 1176)
        ids = torch.randint(0, 1000, (1, 830))
        ids[:, 20:276] = pad

        def once() -> None:
            model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                mm_token_type_ids=ids.eq(pad).int(),
                pixel_values=image,
                image_grid_thw=torch.tensor([[1, 32, 32]]),
            )

        once()
        seconds = min(spent(once) for _ in range(2))
    print(f"{layers} of 28 layers {seconds:6.2f} s a picture, {peak():.1f} GB at most", flush=True)


def spent(work: Callable[[], object]) -> float:
    """Processor seconds."""
    start = time.process_time()
    work()
    return time.process_time() - start


def peak() -> float:
    """GB that this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    rows = {
        "extract": ["inception", "dinov2", "clip 336", "pickscore"],
        "distances": [*SIZES],
        "hpsv3": ["1", "3"],
    }
    kind, *row = sys.argv[1:]
    if row:
        torch.set_num_threads(1)
        {"extract": extract, "distances": distance, "hpsv3": by_layers}[kind](row[0])
    else:
        for name in rows[kind]:
            subprocess.run([sys.executable, __file__, kind, name], check=True)


if __name__ == "__main__":
    main()
