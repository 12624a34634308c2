"""Look before you leap: figures of the real models from their configs alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lavi_bridge import BridgeError
from lavi_bridge.config import Quantize
from lavi_bridge.plan.fits import Needs, Way, lines
from lavi_bridge.plan.plan import Plan, make_plan
from tests import real

Tiny = Callable[[str], Path]


def plan_of(language: Path | str, vision: Path | str, **changes: Any) -> Plan:
    """Without the backward pass, which counts compute alone and takes most of the time."""
    return make_plan(
        str(language), str(vision), **({"compute": False, "checkpointing": False} | changes)
    )


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


@pytest.mark.slow
def test_pixart_is_counted_as_published(tmp_path: Path) -> None:
    t5 = real.language(tmp_path / "t5", real.T5_LARGE)
    plan = plan_of(t5, real.pixart(tmp_path / "pixart"))
    assert plan.adapter_parameters == pytest.approx(113.3e6, rel=0.001)
    assert (plan.tokens, plan.masked) == (120, True)


@pytest.mark.parametrize("bits", ["int8", "nf4"])
def test_what_is_quantised_is_counted_as_it_is_held(bits: Quantize, tiny: Tiny) -> None:
    from lavi_bridge import Bridge

    pair = str(tiny("t5")), str(tiny("flux-dev"))
    bridge = Bridge.connect(
        *pair, rank=4, dtype="float32", quantize=bits, quantize_vision=bits, device="cpu"
    )
    held = sum(p.nbytes for p in bridge.parameters() if not p.requires_grad)
    both = {"quantize": bits, "quantize_vision": bits}
    plan = plan_of(*pair, dtype="float32", language_rank=4, vision_rank=4, **both)
    # beside the tables of scales, which are no parameters
    assert held <= plan.weights_gb * 1e9 < 1.05 * held
    whole = plan_of(*pair, dtype="float32", language_rank=4, vision_rank=4)
    assert plan.weights_gb < 0.8 * whole.weights_gb


def test_with_checkpointing_a_step_needs_less(tiny: Tiny) -> None:
    plan = plan_of(tiny("t5"), tiny("sd"), checkpointing=True, batch_size=64)
    assert plan.checkpointed_gb is not None
    activations = plan.training_gb - plan.weights_gb - 16 * plan.trained / 1e9
    less = plan.training_gb - plan.checkpointed_gb
    assert 0.3 * activations < less < activations
    assert "with checkpointing" in plan.table()


def shown(way: Way | None) -> str:
    return "does not fit" if way is None else f"{way.options}: {way.gb:.1f}"


def test_the_plan_names_the_first_options_that_fit_on_a_card() -> None:
    needs = Needs(
        language={"none": 8.0, "int8": 4.2, "nf4": 2.6},
        vision={"none": 24.0, "int8": 12.4, "nf4": 6.9},
        vae=0.2,
        trained=1.0,
        kept=30.0,
        checkpointed=2.0,
        fused=0.0,
        decoding=1.0,
    )
    small, middle, large = needs.fits()
    assert small.training is None
    assert shown(small.drawing) == "--offload --quantize nf4 --quantize-vision nf4: 11.7"
    bits = "--quantize nf4 --quantize-vision int8"
    assert shown(middle.training) == f"--gradient-checkpointing {bits}: 21.2"
    # the language model and the autoencoder take turns beside what stays
    assert shown(middle.drawing) == "--offload --quantize-vision int8: 21.4"
    assert (shown(large.training), shown(large.drawing)) == (": 66.2", ": 34.2")
    rows = lines([small, large], counted=False)
    assert rows[0] == ("on 12 GB", "train     does not fit")
    assert rows[2] == ("on 80 GB", "train     as it is (above 66.2 GB)")


def test_a_model_that_cannot_be_checkpointed_is_not_said_to_be(tiny: Tiny) -> None:
    ranks = {"language_rank": 4, "vision_rank": 4}
    plan = plan_of(tiny("t5"), tiny("chroma"), checkpointing=True, **ranks)
    assert plan.checkpointed_gb is None
    assert "without checkpointing" in plan.table()


@pytest.mark.slow
def test_a_quantized_language_model_and_sharding_need_less_memory(tiny: Tiny) -> None:
    pair = ("zoo:tiny-t5-large", tiny("sd"))
    whole, small = plan_of(*pair), plan_of(*pair, quantize="nf4")
    assert whole.weights_gb - small.weights_gb > 0.3 * 2 * whole.language_parameters / 1e9
    saved = whole.weights_gb - small.weights_gb
    assert whole.training_gb - small.training_gb == pytest.approx(saved)
    kept = whole.training_gb - whole.weights_gb - 16 * whole.trained / 1e9  # activations
    half = plan_of(*pair, processes=2)
    assert half.training_gb - kept == pytest.approx((whole.training_gb - kept) / 2)


def test_rank_zero_is_shown_as_untouched(tiny: Tiny) -> None:
    plan = plan_of(tiny("t5"), tiny("sd"), language_rank=0)
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


LAYERS = {
    "sdxl": 692,
    "sd3.5-medium": 242,
    "sd3.5-large": 302,
    "flux-dev": 266,
    "qwen-image": 478,
    "z-image": 136,
}
"""Layers that get LoRA, without those whose answers are thrown away (one in SD3.5, two in
Qwen-Image)."""
BILLIONS = {
    "sdxl": 2.57,
    "sd3.5-medium": 2.24,
    "sd3.5-large": 8.06,
    "flux-dev": 11.9,
    "qwen-image": 20.4,
    "z-image": 6.15,
}


def todays(tmp_path: Path, language: str, vision: str, **changes: Any) -> Plan:
    config = {"qwen3": real.QWEN3_4B, "gemma2": real.GEMMA2_2B}[language]
    pair = real.language(tmp_path / language, config), real.today(tmp_path / vision, vision)
    plan = plan_of(*pair, **changes)
    assert plan.vision_lora_layers == LAYERS[vision]
    assert plan.vision_parameters / 1e9 == pytest.approx(BILLIONS[vision], rel=0.01)
    assert plan.language_lora_layers == {"qwen3": 36 * 4, "gemma2": 26 * 4}[language]
    assert plan.language_parameters / 1e9 == pytest.approx(
        {"qwen3": 4.02, "gemma2": 2.61}[language], rel=0.01
    )
    return plan


@pytest.mark.slow
def test_z_image_and_gemma_are_planned_at_their_real_sizes(tmp_path: Path) -> None:
    plan = todays(tmp_path, "gemma2", "z-image")
    assert not plan.counted  # it looks at values
    assert plan.fits[0].training is None
    assert shown(plan.fits[2].drawing) == f": {plan.sampling_gb:.1f}"


@pytest.mark.large
@pytest.mark.parametrize("language", ["qwen3", "gemma2"])
@pytest.mark.parametrize("vision", LAYERS)
def test_models_of_today_are_planned_at_their_real_sizes(
    language: str, vision: str, tmp_path: Path
) -> None:
    plan = todays(tmp_path, language, vision, checkpointing=True)
    small, middle, large = plan.fits
    assert large.training is not None
    assert middle.drawing is not None
    if plan.counted:
        assert plan.checkpointed_gb is not None
        assert plan.checkpointed_gb < plan.training_gb
        assert middle.training is not None
    if vision in ("sdxl", "sd3.5-medium"):
        assert small.training is not None
        assert middle.training is not None
        assert "--quantize-vision" not in middle.training.options
    if vision == "qwen-image":
        assert small.training is None


def test_a_very_wide_text_caps_the_adapter_and_the_plan_says_so(tmp_path: Path) -> None:
    text = real.language(tmp_path / "t5", real.T5_LARGE | {"num_layers": 1})

    def table(width: int) -> str:
        folder = real.pixart(tmp_path / str(width))
        config = real.PIXART | {"num_layers": 1, "caption_channels": width}
        real.write(folder / "transformer" / "config.json", config)
        return plan_of(text, folder).table()

    assert "capped" not in table(4096)
    assert "feedforward 1024 → 15360, 411.11 M, its middle width capped at 4096" in table(15_360)
