"""An image model held in 8 or 4 bits under LoRA: it learns, is saved and draws as any other."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.bridge import lora
from lavi_bridge.config import Quantize
from lavi_bridge.files.locate import locate
from lavi_bridge.running.quantize import quantizable
from lavi_bridge.visions import load_vision

Tiny = Callable[[str], Path]
KINDS = [("sd", "nf4"), ("sd", "int8"), ("pixart-alpha", "nf4"), ("flux-dev", "nf4")]
KINDS += [("flux-dev", "int8")]
ALL = pytest.mark.parametrize(("vision", "bits"), KINDS)
FEW = pytest.mark.parametrize(
    ("vision", "bits"),
    [
        kind if kind in (KINDS[0], KINDS[-1]) else pytest.param(*kind, marks=pytest.mark.slow)
        for kind in KINDS
    ],
)
"""Each model in one way and each way on one model; the others by name."""


def held(model: nn.Module) -> int:
    return sum(p.nbytes for p in model.parameters())


@FEW
def test_it_learns_and_what_is_saved_draws_the_same_picture(
    vision: str, bits: Quantize, tiny: Tiny, tmp_path: Path
) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny(vision), rank=4, quantize_vision=bits, device="cpu")
    side = bridge.vision.resolution
    pixels = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    frozen = {n: p.detach().clone() for n, p in bridge.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW(bridge.trainable_parameters(), lr=1e-2)
    bridge.train()
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = bridge.loss(pixels, ["red", ""], generator=torch.Generator().manual_seed(0))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    for name, parameters in bridge.parts().items():
        assert all(p.grad is not None and p.grad.any() for p in parameters), name
    assert all(torch.equal(p, dict(bridge.named_parameters())[n]) for n, p in frozen.items())

    bridge.save(tmp_path / "bridge")
    again = Bridge.load(tmp_path / "bridge", quantize_vision=bits, device="cpu")
    assert again.id == bridge.id == Bridge.load(tmp_path / "bridge", device="cpu").id
    ours, theirs = (
        np.asarray(b.generate("a red circle", steps=3)[0], int) for b in (bridge, again)
    )
    assert np.array_equal(ours, theirs)


@ALL
def test_it_is_near_the_whole_model_in_fewer_bytes(vision: str, bits: Quantize, tiny: Tiny) -> None:
    place = locate(tiny(vision))
    small = load_vision(place, dtype=torch.float32, quantize=bits)
    whole = load_vision(place, dtype=torch.float32)
    found = quantizable(whole.backbone, whole.lora_targets)
    saved = (
        sum(layer.weight.nbytes for layer in found.values()) * {"int8": 3 / 4, "nf4": 7 / 8}[bits]
    )
    assert held(whole.backbone) - held(small.backbone) == pytest.approx(saved, rel=0.02)
    assert held(whole.vae) == held(small.vae)
    assert (small.dtype, small.device.type) == (torch.float32, "cpu")
    for name, layer in found.items():
        with torch.no_grad():
            x = torch.randn(4, layer.in_features, generator=torch.Generator().manual_seed(0))
            expected, given = layer(x), small.backbone.get_submodule(name)(x)
        error = (given - expected).norm() / expected.norm()
        assert 0 < error < {"int8": 0.03, "nf4": 0.2}[bits], name


def test_embeddings_convolutions_and_the_final_projection_stay_whole(tiny: Tiny) -> None:
    flux = load_vision(locate(tiny("flux-dev")), dtype=torch.float32, quantize="nf4").backbone
    stay = [name for name, module in flux.named_modules() if type(module) is nn.Linear]
    assert {name.split(".")[0] for name in stay} == {
        "time_text_embed",
        "context_embedder",
        "x_embedder",
        "norm_out",
        "proj_out",
    }
    unet = load_vision(locate(tiny("sd")), dtype=torch.float32, quantize="nf4").backbone
    stay = [name for name, module in unet.named_modules() if type(module) is nn.Linear]
    assert stay == ["time_embedding.linear_1", "time_embedding.linear_2"]
    assert all(p.is_floating_point() for p in unet.parameters() if p.ndim == 4)


def test_what_a_class_keeps_in_float32_stays(tiny: Tiny) -> None:
    wan = load_vision(locate(tiny("wan")), dtype=torch.bfloat16, quantize="nf4").backbone
    assert wan.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32
    assert wan.blocks[0].attn1.to_q.weight.dtype == torch.uint8


def test_both_models_may_be_held_in_fewer_bits(tiny: Tiny) -> None:
    bits: Quantize = "nf4"
    bridge = Bridge.connect(
        tiny("llama"), tiny("sd3"), rank=4, quantize=bits, quantize_vision=bits, device="cpu"
    )
    bridge.train()
    bridge.loss(torch.zeros(1, 3, 64, 64), ["red"]).backward()
    assert all(p.grad is not None for p in bridge.trainable_parameters())


@pytest.mark.parametrize("bits", ["int8", "nf4"])
def test_while_drawing_lora_stays_beside_quantised_weights(bits: Quantize, tiny: Tiny) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=4, quantize_vision=bits, device="cpu")
    model = bridge.vision.backbone
    seed = torch.Generator().manual_seed(1)
    for layer in lora.layers(model).values():
        nn.init.normal_(layer.lora_B["default"].weight, std=0.1, generator=seed)
    text = bridge.encode("red")
    noise = torch.Generator().manual_seed(0)
    x_t = torch.randn(1, *bridge.vision.latent_shape(16, 16), generator=noise)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        apart = bridge.vision.predict(x_t, torch.tensor([3]), text)
        with lora.disabled(model):
            without = bridge.vision.predict(x_t, torch.tensor([3]), text)
        with lora.fused(model):
            assert not any(
                layer.merged
                for layer in lora.layers(model).values()
                if not layer.get_base_layer().weight.is_floating_point()
            )
            inside = bridge.vision.predict(x_t, torch.tensor([3]), text)
    # int8 rounds activations, too: what lies between two steps may fall to either
    assert torch.allclose(inside, apart, atol={"int8": 3e-3, "nf4": 1e-5}[bits])
    assert (without - apart).abs().max() > 3e-2
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_the_package_that_is_missing_is_named(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(BridgeError, match=r"'quantize_vision' nf4 .*'lavi-bridge\[quantize\]'"):
        load_vision(locate(tiny("sd")), dtype=torch.float32, quantize="nf4")
