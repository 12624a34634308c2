"""What every image family is held to, measured on its tiny model: the columns of docs/models.md.

Each check takes a bridge and answers with what it saw, so that a page can say no and a test can ask
for yes.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lavi_bridge.bridge import lora
from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.visions.noise.process import Flow

PROMPTS = ("a red circle", "two blue squares next to a very small green ring")
STEPS, GUIDANCE, SEED = 4, 3.0, 3
ONE_PICTURE = ("PRXPipeline",)
"""Pipelines that repeat the timesteps for one picture alone."""
FIXED_AREA = ("HiDreamImagePipeline",)
"""Pipelines that change any size to one of as many pixels as they were made for."""


def train_a_little(bridge: Bridge, steps: int = 2) -> None:
    """Make LoRA do something: its up matrices start at zero."""
    side = bridge.vision.resolution
    optimizer = torch.optim.AdamW(bridge.trainable_parameters(), lr=3e-3)
    for step in range(steps):
        optimizer.zero_grad()
        generator = torch.Generator().manual_seed(step)
        bridge.loss(torch.zeros(1, 3, side, side), ["a"], generator=generator).backward()
        optimizer.step()


@torch.no_grad()
def make_loud(bridge: Bridge) -> None:
    """Enlarge what carries the text, which moves a random tiny model's picture little."""
    for parameter in bridge.adapter.parameters():
        parameter.mul_(4 if parameter.ndim > 1 else 1)
    for name, module in bridge.vision.backbone.named_modules():
        if not isinstance(module, nn.Linear) or "lora" in name:
            continue
        if module.in_features == bridge.vision.text_width:
            module.weight.mul_(2)
        elif "add_v_proj" in name or "single" in name or name.endswith("proj_out"):
            module.weight.mul_(4)


def pictures(bridge: Bridge, prompts: Sequence[str] = PROMPTS, **options: Any) -> np.ndarray:
    """Draw as `Bridge.generate` does: (prompts, height, width, 3), 0 to 255."""
    options = {"steps": STEPS, "guidance": GUIDANCE, "seed": SEED} | options
    return np.stack([np.asarray(image, int) for image in bridge.generate(prompts, **options)])


def off_pipeline(bridge: Bridge, scheduler: str | None = None, *, wide: bool = False) -> int:
    """Grey levels between our pictures and those of diffusers' own pipeline, at most.

    Args:
        scheduler: name of a sampler; the family's own by default.
        wide: pictures twice as wide as they are high instead of square ones; four times for
            FIXED_AREA.
    """
    side = bridge.vision.resolution
    height, width = side, side * (2 if wide else 1)
    pipe = bridge.to_diffusers(scheduler)
    if type(pipe).__name__ in FIXED_AREA:
        pipe.default_sample_size = side // bridge.vision.scale
        height = side // (2 if wide else 1)
    pipe.set_progress_bar_config(disable=True)
    prompts = PROMPTS[:1] if type(pipe).__name__ in ONE_PICTURE else PROMPTS
    known = inspect.signature(pipe.__call__).parameters
    wanted = {"use_resolution_binning": False, "num_frames": 1, "output_type": "pil"}
    drawn = pipe(
        **bridge.prompt_embeds(prompts),
        **bridge.vision.pipeline_guidance(GUIDANCE),
        num_inference_steps=STEPS,
        generator=[torch.Generator().manual_seed(SEED + i) for i in range(len(prompts))],
        height=height,
        width=width,
        **{name: value for name, value in wanted.items() if name in known},
    )
    images = drawn.images if hasattr(drawn, "images") else [video[0] for video in drawn.frames]
    theirs = np.stack([np.asarray(image, int) for image in images])
    ours = pictures(bridge, prompts, height=height, width=width, scheduler=scheduler)
    assert ours.shape == theirs.shape == (len(prompts), height, width, 3)
    return int(np.abs(ours - theirs).max())


def samplers(bridge: Bridge) -> tuple[str, str, str]:
    """Three samplers to compare: the family's own first."""
    flow = isinstance(bridge.vision.process, Flow)
    own = bridge.vision.default_scheduler
    known = ("flow-euler", "unipc", "dpm++") if flow else ("unipc", "ddim", "euler")
    first, second = [name for name in known if name != own][:2]
    return own, first, second


def off_alone(bridge: Bridge) -> int:
    """Grey levels between a picture drawn beside another and drawn alone, at most."""
    together = pictures(bridge, batch_size=2)
    return int(np.abs(together - pictures(bridge, batch_size=1)).max())


def moved_by_prompt(bridge: Bridge) -> int:
    """Grey levels by which another prompt moves the same seed's picture, at most."""
    one, other = (pictures(bridge, [prompt]) for prompt in PROMPTS)
    return int(np.abs(one - other).max())


def off_saved(bridge: Bridge, folder: Path) -> int | None:
    """Grey levels between a bridge's pictures and those of its saved self; None: another id."""
    bridge.save(folder)
    again = Bridge.load(folder, device="cpu")
    if again.id != bridge.id:
        return None
    return int(np.abs(pictures(bridge) - pictures(again)).max())


def off_moments(bridge: Bridge) -> float:
    """Difference between latents by `moments` and `draw` and those of `encode`, at most."""
    height, width = bridge.vision.size
    pixels = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
    at_once = bridge.vision.encode(pixels, torch.Generator().manual_seed(1))
    moments = bridge.vision.moments(pixels)
    return float(
        (bridge.vision.draw(*moments, torch.Generator().manual_seed(1)) - at_once).abs().max()
    )


def dead_layers(bridge: Bridge) -> list[str]:
    """LoRA parameters of the vision model that get no gradient, or none but zeros."""
    side = bridge.vision.resolution
    bridge.zero_grad()
    pixels = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    bridge.loss(pixels, ["a red circle"], generator=torch.Generator().manual_seed(1)).backward()
    ours = {id(parameter) for parameter in lora.parameters(bridge.vision.backbone)}
    named = [(n, p) for n, p in bridge.vision.backbone.named_parameters() if id(p) in ours]
    return [name for name, p in named if p.grad is None or not p.grad.any()]


def lora_layers(bridge: Bridge) -> int:
    """Layers of the vision model that get LoRA."""
    return len(lora.parameters(bridge.vision.backbone)) // 2


def half_step(bridge: Bridge) -> bool:
    """Whether a training step in bfloat16 has a loss and gradients that are numbers."""
    side = bridge.vision.resolution
    bridge.zero_grad()
    loss = bridge.loss(
        torch.zeros(1, 3, side, side), ["a"], generator=torch.Generator().manual_seed(0)
    )
    loss.backward()
    gradients = [p.grad for p in bridge.trainable_parameters() if p.grad is not None]
    return bool(loss.isfinite()) and all(bool(gradient.isfinite().all()) for gradient in gradients)
