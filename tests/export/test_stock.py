"""What others made for a stock pipeline works with a bridge in the place of its text encoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.export import alone, jobs

Tiny = Callable[[str], Path]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def sd(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A bridge of Stable Diffusion in stock form, and the pictures that it draws."""
    folder = tmp_path_factory.mktemp("stock") / "sd"
    return jobs.job(jobs.trained(tiny("llama"), tiny("sd")), folder, "stock")


def drawn(pipe: Any, told: dict[str, Any], **options: Any) -> np.ndarray:
    return alone.draw(pipe, told["prompts"], told["seed"], told["options"] | options)


def test_a_controlnet(sd: dict[str, Any]) -> None:
    """Fresh, it adds nothing: its layers begin at zero. Trained, it does."""
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

    plain = alone.load(sd["folder"], False)
    control = ControlNetModel.from_unet(plain.unet, conditioning_embedding_out_channels=(8, 16))
    pipe = StableDiffusionControlNetPipeline(**plain.components, controlnet=control)
    pipe.set_progress_bar_config(disable=True)
    options = {"image": torch.rand(2, 3, 16, 16), "height": 16, "width": 16}
    assert np.abs(drawn(pipe, sd, **options) - np.array(sd["expected"])).max() <= 1
    for parameter in control.controlnet_mid_block.parameters():
        torch.nn.init.constant_(parameter, 0.5)
    assert np.abs(drawn(pipe, sd, **options) - np.array(sd["expected"])).max() > 8


def test_an_ip_adapter(sd: dict[str, Any]) -> None:
    pipe = alone.load(sd["folder"], False)
    generator = torch.Generator().manual_seed(0)

    def weight(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    width, seen, told = pipe.unet.config.cross_attention_dim, 12, 4
    layers: dict[str, torch.Tensor] = {}
    names = [name for name in pipe.unet.attn_processors if name.endswith("attn2.processor")]
    for place, name in enumerate(names):
        inner = pipe.unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
        for part in ("to_k_ip", "to_v_ip"):
            layers[f"{2 * place + 1}.{part}.weight"] = weight(inner, width)
    image = {
        "proj.weight": weight(told * width, seen),
        "proj.bias": weight(told * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    pipe.load_ip_adapter(
        {"image_proj": image, "ip_adapter": layers},
        subfolder="",
        weight_name="",
        image_encoder_folder=None,
    )
    given = {"ip_adapter_image_embeds": [weight(4, 1, seen)]}  # two without a picture come first
    pipe.set_ip_adapter_scale(0.0)
    assert np.abs(drawn(pipe, sd, **given) - np.array(sd["expected"])).max() <= 1
    pipe.set_ip_adapter_scale(1.0)
    assert np.abs(drawn(pipe, sd, **given) - np.array(sd["expected"])).max() > 8


@pytest.mark.parametrize("vision", ["sd", "sana"])
def test_a_community_lora(vision: str, tiny: Tiny, tmp_path: Path) -> None:
    """By the names that trainers write; PixArt's pipelines have no loader of LoRA."""
    told = jobs.job(jobs.trained(tiny("t5"), tiny(vision)), tmp_path / "out", "stock")
    pipe = alone.load(told["folder"], False)
    backbone, name = (pipe.unet, "unet") if vision == "sd" else (pipe.transformer, "transformer")
    generator, state = torch.Generator().manual_seed(0), {}
    for path, module in backbone.named_modules():
        if path.endswith("attn2.to_v"):
            inner, outer = module.in_features, module.out_features
            state[f"{name}.{path}.lora_A.weight"] = torch.randn(4, inner, generator=generator)
            state[f"{name}.{path}.lora_B.weight"] = torch.randn(outer, 4, generator=generator)
    pipe.load_lora_weights(state, adapter_name="theirs")
    assert np.abs(drawn(pipe, told) - np.array(told["expected"])).max() > 8
    pipe.set_adapters("theirs", 0.0)
    assert np.abs(drawn(pipe, told) - np.array(told["expected"])).max() <= 1
