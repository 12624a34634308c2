"""Look before you leap: figures of the real models from their configs alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from lavi_bridge import BridgeError
from lavi_bridge.plan.plan import Plan, make_plan
from tests import real


def plan_of(language: Path | str, vision: Path | str, **changes: Any) -> Plan:
    """Without the backward pass, which counts compute alone and takes most of the time."""
    return make_plan(str(language), str(vision), compute=False, **changes)


@pytest.mark.slow
def test_t5_large_and_sd_are_counted_as_published(tmp_path: Path) -> None:
    t5 = real.language(tmp_path / "t5", real.T5_LARGE)
    sd = real.stable_diffusion(tmp_path / "sd")
    plan = make_plan(str(t5), str(sd))
    assert (plan.vision_lora_layers, plan.language_lora_layers) == (224, 96)
    assert plan.vision_lora_parameters == pytest.approx(28.3e6, rel=0.001)
    assert plan.adapter_parameters == pytest.approx(21.25e6, rel=0.001)
    assert (plan.language_width, plan.vision_text_width) == (1024, 768)
    assert (plan.tokens, plan.masked, plan.resolution) == (77, False, 512)
    assert "224 layers, 28.29 M" in plan.table()
    assert json.loads(plan.json())["trained_parameters"] == plan.trained
    # counted on an H200 for 32 images: 64.2 TFLOP
    assert 32 * (plan.training_tflop or 0) == pytest.approx(64.2, abs=0.05)
    # measured on an H200 at batch 8 in bf16, latents cached: 14.1 GB
    assert plan_of(t5, sd, batch_size=8).training_gb == pytest.approx(14.1, rel=0.15)


@pytest.mark.slow
def test_llama_2_is_counted_as_published(tmp_path: Path) -> None:
    llama = real.language(tmp_path / "llama", real.LLAMA2_7B)
    plan = plan_of(llama, real.stable_diffusion(tmp_path / "sd"))
    assert plan.language_lora_layers == 128
    assert plan.adapter_parameters == pytest.approx(228.9e6, rel=0.001)


def test_pixart_is_counted_as_published(tmp_path: Path) -> None:
    t5 = real.language(tmp_path / "t5", real.T5_LARGE)
    plan = plan_of(t5, real.pixart(tmp_path / "pixart"))
    assert plan.adapter_parameters == pytest.approx(113.3e6, rel=0.001)
    assert (plan.tokens, plan.masked) == (120, True)


def test_a_quantized_language_model_and_sharding_need_less_memory() -> None:
    pair = ("zoo:tiny-t5-large", "zoo:tiny-sd")
    whole, small = plan_of(*pair), plan_of(*pair, quantize="nf4")
    saved = 0.72 * 2 * whole.language_parameters / 1e9
    assert whole.training_gb - small.training_gb == pytest.approx(saved)
    kept = whole.training_gb - whole.weights_gb - 16 * whole.trained / 1e9  # activations
    half = plan_of(*pair, processes=2)
    assert half.training_gb - kept == pytest.approx((whole.training_gb - kept) / 2)


def test_rank_zero_is_shown_as_untouched() -> None:
    plan = plan_of("zoo:tiny-t5-base", "zoo:tiny-sd", language_rank=0)
    assert plan.language_lora_parameters == 0
    assert "language LoRA    untouched" in plan.table()


def test_the_plan_agrees_with_the_bridge_it_plans() -> None:
    from lavi_bridge import Bridge

    plan = plan_of("zoo:tiny-llama", "zoo:tiny-sd", language_rank=4, vision_rank=4)
    bridge = Bridge.connect("zoo:tiny-llama", "zoo:tiny-sd", rank=4)
    assert plan.trained == sum(p.numel() for p in bridge.trainable_parameters())
    frozen = sum(p.numel() for p in bridge.parameters() if not p.requires_grad)
    assert plan.download_gb == pytest.approx(frozen * 4 / 1e9)


def test_an_unknown_adapter_lists_the_known() -> None:
    with pytest.raises(
        BridgeError, match=r"unknown adapter 'liner'; known: .*did you mean 'linear'"
    ):
        make_plan("zoo:tiny-t5-base", "zoo:tiny-sd", adapter="liner")
