"""Exported folders: they draw what the bridge draws, and hold nothing of this machine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lavi_bridge import Bridge
from lavi_bridge.export import Form, export_bridge
from tests.export import alone, jobs
from tests.visions import checks

Tiny = Callable[[str], Path]
pytestmark = pytest.mark.filterwarnings(
    # diffusers' own, where a stock pipeline is handed another class of text encoder
    "ignore:.*:DeprecationWarning",
)


def off(bridge: Bridge, folder: Path, form: Form, *, servers: bool = True) -> int:
    """Grey levels between a bridge's pictures and those of its export, at most."""
    told = jobs.job(bridge, folder, form, servers=servers)
    pipe = alone.load(told["folder"], told["servers"])
    assert pipe.components
    found = alone.draw(pipe, told["prompts"], told["seed"], told["options"])
    return int(np.abs(found - np.array(told["expected"])).max())


@pytest.mark.parametrize("vision", jobs.FAMILIES)
def test_a_merged_folder_draws_what_the_bridge_draws(
    vision: str, tiny: Tiny, tmp_path: Path
) -> None:
    bridge = jobs.trained(tiny("t5"), tiny(vision))
    assert checks.moved_by_prompt(bridge) > 8
    assert off(bridge, tmp_path / "out", "merged") <= 1


@pytest.mark.parametrize("vision", jobs.STOCK)
def test_the_stock_pipeline_draws_with_the_text_half_in_its_encoders_place(
    vision: str, tiny: Tiny, tmp_path: Path
) -> None:
    assert off(jobs.trained(tiny("t5"), tiny(vision)), tmp_path / "out", "stock") <= 1


@pytest.mark.parametrize("adapter", ["linear", "refiner", "resampler"])
@pytest.mark.parametrize("vision", ["sdxl", "pixart-alpha"])
def test_every_adapter_that_keeps_its_features_travels(
    adapter: str, vision: str, tiny: Tiny, tmp_path: Path
) -> None:
    bridge = jobs.trained(tiny("llama"), tiny(vision), adapter=adapter)
    assert off(bridge, tmp_path / "out", "merged") <= 1


@pytest.mark.parametrize("adapter", ["fusion", "concat"])
@pytest.mark.parametrize("vision", ["sd", "sdxl", "sana", "qwen-image"])
def test_an_adapter_that_keeps_the_own_encoder_brings_it(
    adapter: str, vision: str, tiny: Tiny, whole: Tiny, tmp_path: Path
) -> None:
    bridge = jobs.trained(tiny("t5"), whole(vision), adapter=adapter)
    assert off(bridge, tmp_path / "out", "merged") <= 1


def test_an_own_encoder_whose_padding_is_masked_comes_along(tiny: Tiny, tmp_path: Path) -> None:
    bridge = jobs.trained(tiny("t5"), "zoo:tiny-pixart", adapter="concat")
    assert off(bridge, tmp_path / "out", "merged") <= 1


@pytest.mark.parametrize(
    "asked",
    [
        {"layers": "penultimate"},
        {"layers": 1},
        {"layers": "mean"},
        {"layers": "mix"},
        {"layers": "stack:2"},
        {"template": "Draw this: "},
        {"tokens": 100},
        {"template": "Draw this: ", "layers": "mix", "tokens": 100},
    ],
    ids=str,
)
@pytest.mark.parametrize("language", ["t5", "llama", "bert"])
def test_what_is_asked_of_the_language_model_travels(
    language: str, asked: dict[str, Any], tiny: Tiny, tmp_path: Path
) -> None:
    bridge = jobs.trained(tiny(language), tiny("sd"), **asked)
    assert off(bridge, tmp_path / "out", "merged") <= 1


def test_prompts_of_all_lengths_are_read_as_the_bridge_reads_them(
    tiny: Tiny, tmp_path: Path
) -> None:
    prompts = ["", "a", "a red circle " * 30, "zwei Kreise, 😀 \ud800"]
    for vision in ("sd", "pixart-alpha"):
        bridge = jobs.trained(tiny("llama"), tiny(vision), tokens=100)
        export_bridge(bridge, tmp_path / vision)
        found = alone.load(str(tmp_path / vision), True).text(prompts)
        ours = bridge.encode(prompts)
        torch.testing.assert_close(found.hidden, ours.hidden, rtol=1e-4, atol=1e-4)
        assert ours.mask is None or torch.equal(found.mask, ours.mask)
