"""The same seed gives the same picture in our loop and in diffusers' own pipelines."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lavi_bridge import Bridge, testing
from tests.visions import checks

Tiny = Callable[[str], Path]
PROMPTS = ["a red circle", "two blue squares next to a very small green ring"]
VISIONS = ("sd", "sd2-v", "ldm", "pixart-alpha", "pixart-sigma")
CASES = [(v, scheduler) for v in VISIONS for scheduler in ("unipc", "ddim", "euler", "dpm++")]
CASES += [
    ("sana", "flow-euler"),
    ("sana", "unipc"),
    ("sana", "dpm++"),
    ("sd", "pndm"),
    ("sd", "euler-a"),
    ("sd", "ddpm"),
    ("sd", "heun"),
    ("pixart-alpha-1024", "unipc"),
    ("sdxl", "euler"),
    ("sd3", "unipc"),
    ("flux-dev", "dpm++"),
    ("flux2", "unipc"),
    ("flux2-klein", "dpm++"),
    ("hunyuan-dit", "euler"),
    ("auraflow", "unipc"),
]


@pytest.mark.parametrize(("vision", "scheduler"), CASES)
def test_generate_and_the_stock_pipeline_draw_the_same(
    vision: str, scheduler: str, tiny: Tiny
) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny(vision), rank=4)
    checks.train_a_little(bridge)
    assert checks.off_pipeline(bridge, scheduler) <= 1


OLDER = {*VISIONS, "pixart-alpha-1024", "sana"}
CURRENT = [name for name in testing.VISIONS if name not in OLDER]


@pytest.mark.parametrize("vision", CURRENT)
def test_current_models_draw_as_their_own_pipelines(vision: str, tiny: Tiny) -> None:
    """Square and 2:1: time shifts, positions and size inputs depend on it."""
    bridge = Bridge.connect(tiny("t5"), tiny(vision), rank=4)
    checks.train_a_little(bridge)
    assert checks.off_pipeline(bridge) <= 1
    assert checks.off_pipeline(bridge, wide=True) <= 1


def test_the_zoo_draws_the_same_in_its_own_pipeline() -> None:
    """Really trained weights, the folder's own text encoder, diffusers alone on the other side."""
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    bridge = Bridge.own("zoo:tiny-sd")
    ours = bridge.generate(PROMPTS, seed=3, steps=8, guidance=4.0, scheduler="dpm++")
    pipe = StableDiffusionPipeline.from_pretrained(bridge.vision.place.root, dtype=torch.float32)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(3 + i) for i in range(2)]
    theirs = pipe(PROMPTS, num_inference_steps=8, guidance_scale=4.0, generator=generators).images
    for mine, other in zip(ours, theirs, strict=True):
        assert np.abs(np.asarray(mine, int) - np.asarray(other, int)).max() <= 1
