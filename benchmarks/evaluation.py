"""What does an evaluation cost: drawing against the plain way, and each metric beside the drawing.

    python benchmarks/evaluation.py draw     # images/s / one at a time, LoRA in its own layers
    python benchmarks/evaluation.py score    # images/s of every metric that needs no weights, and
                                             # of networks of the real sizes with random weights

On a GPU (`--device cuda`) drawing is that of T5-Large × Stable Diffusion 1.4's sizes with random
weights in bfloat16; on a CPU that of the bundled pair. Sides take turns; medians of the rounds.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Generator

sys.path.insert(0, str(Path(__file__).parents[1]))

from lavi_bridge import Bridge
from lavi_bridge.config import Sampling
from lavi_bridge.evaluate.drawing import draw, jobs_of
from lavi_bridge.evaluate.scoring import judge
from lavi_bridge.metrics import Score
from lavi_bridge.metrics.aesthetics import AestheticV2
from lavi_bridge.metrics.clip import CLIPScore
from lavi_bridge.metrics.compbench.blip_vqa import BLIPVQA
from lavi_bridge.metrics.shapes import ExactShapes
from lavi_bridge.prompts.suites import load_suite
from lavi_bridge.show.pictures import to_images
from lavi_bridge.visions.noise.process import gaussian


def drawing(rounds: int, device: torch.device, batch: int) -> None:
    """Images per second of an evaluation, and of the same bridge asked plainly."""
    if device.type == "cuda":
        from throughput import Row, make_bridge

        with tempfile.TemporaryDirectory() as folder:
            bridge = make_bridge(Row("sd", batch, "cached"), Path(folder), device)
        steps = 50
    else:
        bridge = Bridge.connect("zoo:tiny-llama", "zoo:tiny-sd", rank=16, device=device)
        steps = 20
    prompts = load_suite("shapes", limit=2 * batch)
    jobs = jobs_of(prompts, 1, 0)
    sampling = Sampling(steps=steps, batch_size=batch)

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            draw(bridge, jobs, Path(folder), sampling, identity={})

    def plainly() -> None:
        """One image at a time, LoRA beside the weights, without files."""
        with torch.no_grad():
            for job in jobs[: len(jobs) // 4]:
                shape = bridge.vision.latent_shape(
                    bridge.vision.resolution, bridge.vision.resolution
                )
                start = torch.empty(1, *shape, device=bridge.vision.device)
                latents = gaussian(start, Generator().manual_seed(job.seed))
                text, null = bridge.encode(job.prompt.text), bridge.encode("")
                *_, last = bridge.sample(
                    text, null, latents=latents, scheduler="unipc", steps=steps
                )
                to_images(bridge.vision.decode(last.latents))

    bridge.eval()
    taken: dict[str, list[float]] = {"ours": [], "plainly": []}
    for _ in range(rounds + 1):
        taken["ours"].append(len(jobs) / timed(ours))
        taken["plainly"].append((len(jobs) // 4) / timed(plainly))
    mine, plain = (statistics.median(values[1:]) for values in taken.values())
    print(
        f"drawing {steps} steps: {mine:.2f} images/s in batches of {batch}, {plain:.2f} one at a "
        f"time; {mine / plain:.2f} times as fast ({rounds} rounds)"
    )


def scoring(rounds: int, device: torch.device, batch: int) -> None:
    """Images per second of each metric."""
    bridge = Bridge.own("zoo:tiny-sd", device="cpu")
    prompts = load_suite("shapes", limit=32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = jobs_of(prompts, 1, 0)
        draw(bridge, jobs, folder, Sampling(steps=2, batch_size=32), identity={})
        pairs = [(job.prompt, folder / "images" / job.file) for job in jobs]
        clip, blip, head = write_clip(folder), write_blip(folder), write_head(folder)
        metrics: dict[str, Score] = {
            "shapes": ExactShapes(),
            "CLIP score (ViT-L/14)": CLIPScore(scorer=clip, device=device),
            "aesthetics v2, beside it": AestheticV2(scorer=clip, head=head, device=device),
            "BLIP-VQA (base, 2 chunks)": BLIPVQA(
                scorer=str(blip), device=device, chunks=lambda _: ["a red circle", "a blue square"]
            ),
        }
        for title, metric in metrics.items():
            few = pairs if title == "shapes" or device.type == "cuda" else pairs[:8]
            speeds = []
            for number in range(rounds):
                work = folder / f"scores-{number}"
                once = partial(judge, {"x": metric}, few, work)
                speeds.append(len(few) / timed(once))
            print(
                f"{title}: {statistics.median(speeds):.1f} images/s ({rounds} rounds)", flush=True
            )


def write_clip(folder: Path) -> Path:
    """CLIP ViT-L/14's sizes with random weights."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    place = folder / "clip"
    letters = [chr(n) for n in range(33, 127)]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[]).save_pretrained(place)
    CLIPImageProcessorPil().save_pretrained(place)
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1}
    text = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": len(words),
    }
    vision = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "patch_size": 14,
        "image_size": 224,
    }
    config = CLIPConfig(projection_dim=768, text_config=text | ends, vision_config=vision)
    CLIPModel(config).save_pretrained(place)
    return place


def write_blip(folder: Path) -> Path:
    """BLIP-VQA-base's sizes with random weights."""
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForQuestionAnswering,
        BlipImageProcessorPil,
    )

    place = folder / "blip"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz?"]
    words += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    words += [f"[{n}]" for n in range(30524 - len(words))]
    BertTokenizer(vocab={w: i for i, w in enumerate(words)}).save_pretrained(place)
    BlipImageProcessorPil().save_pretrained(place)
    text = {"encoder_hidden_size": 768, "vocab_size": 30524}
    config = BlipConfig(text_config=text, vision_config={"image_size": 384})
    BlipForQuestionAnswering(config).save_pretrained(place)
    return place


def write_head(folder: Path) -> Path:
    """The aesthetic head's sizes with random weights."""
    widths = [768, 1024, 128, 64, 16, 1]
    state: dict[str, torch.Tensor] = {}
    for place, (a, b) in zip((0, 2, 4, 6, 7), itertools.pairwise(widths), strict=True):
        state |= {
            f"layers.{place}.weight": torch.randn(b, a) / a,
            f"layers.{place}.bias": torch.zeros(b),
        }
    torch.save(state, folder / "head.pth")
    return folder / "head.pth"


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", help="of draw, score (unset: both)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    parts = {"draw": drawing, "score": scoring}
    for part in options.parts or parts:
        parts[part](options.rounds, torch.device(options.device), options.batch)


if __name__ == "__main__":
    main()
