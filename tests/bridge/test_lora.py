"""LoRA: injected where asked, dropped where published, fused without a trace."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.bridge import lora
from lavi_bridge.config import LoRA
from lavi_bridge.languages.calm import whole_gelu
from tests.real import Kernels

Tiny = Callable[[str], Path]


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))


def test_a_fresh_lora_changes_nothing_and_down_has_the_published_spread() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(400, 300))
    x = torch.randn(2, 400)
    before = net(x).detach()
    assert lora.inject(net, LoRA(16, "0")) == 1
    assert torch.equal(net(x), before)
    assert lora.layers(net)["0"].lora_A["default"].weight.std().item() == pytest.approx(
        1 / 16, rel=0.05
    )


def test_dropout_falls_on_the_output_of_the_branch() -> None:
    net = model()
    lora.inject(net, LoRA(2, "0", dropout=0.5))
    layer = lora.layers(net)["0"]
    layer.lora_B["default"].weight.data.fill_(1.0)
    x = torch.randn(1000, 6)
    net.eval()
    branch = layer(x) - layer.get_base_layer()(x)
    net.train()
    dropped = layer(x) - layer.get_base_layer()(x)
    kept = dropped.abs() > 1e-6
    assert kept.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert torch.allclose(dropped[kept], 2 * branch[kept], atol=1e-5)


def test_a_pattern_that_hits_nothing_is_an_error_that_names_the_layers() -> None:
    with pytest.raises(
        BridgeError, match=r"LoRA pattern 'attn' hits nothing .*end in: 0, 2 \(peft"
    ):
        lora.inject(model(), LoRA(2, "attn"))


def test_fusing_leaves_not_a_bit_behind_and_gives_the_same_output() -> None:
    net = model().eval()
    lora.inject(net, LoRA(2, "0|2"))
    for layer in lora.layers(net).values():
        nn.init.normal_(layer.lora_B["default"].weight)
    x = torch.randn(8, 6)
    before, weights = net(x), [p.clone() for p in net.parameters()]
    with lora.fused(net):
        assert torch.allclose(net(x), before, atol=1e-5)
        assert not torch.equal(lora.layers(net)["0"].get_base_layer().weight, weights[0])
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), weights, strict=True))
    assert torch.equal(net(x), before)


def test_bf16_weights_are_not_fused_as_a_light_lora_would_round_away() -> None:
    net = nn.Sequential(nn.Linear(64, 64)).to(torch.bfloat16)
    lora.inject(net, LoRA(8, "0"))
    layer = lora.layers(net)["0"]
    nn.init.normal_(layer.lora_B["default"].weight, std=1e-4)
    x = torch.randn(4, 64, dtype=torch.bfloat16)
    before, weight = net(x), layer.get_base_layer().weight.clone()
    with torch.no_grad(), lora.fused(net):
        assert not layer.merged
        assert torch.equal(layer.get_base_layer().weight, weight)
        assert torch.allclose(net(x), before, rtol=1e-2, atol=1e-3)
    assert torch.equal(net(x), before)


def exactly(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What a layer would answer in float64."""
    return copy.deepcopy(layer).double()(x.double())


@pytest.mark.parametrize("kind", ["linear", "sequence", "conv", "conv, channels last, strided"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sampling_in_half_precision_takes_two_kernels_a_branch_and_no_cast(
    kind: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    base: nn.Module = nn.Linear(32, 48)
    x = torch.randn((60, 32) if kind == "linear" else (4, 30, 32))
    if kind.startswith("conv"):
        base, x = nn.Conv2d(16, 24, 3, padding=1), torch.randn(8, 16, 12, 12)
    if "strided" in kind:
        base = nn.Conv2d(16, 24, 3, 2, 1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = x.to(memory_format=torch.channels_last)
    net = nn.Sequential(base).to(dtype).eval()
    lora.inject(net, LoRA(4, "0", dropout=0.1))
    layer = lora.layers(net)["0"]
    nn.init.normal_(layer.lora_B["default"].weight, std=0.02)
    x = x.to(dtype)
    with torch.no_grad():
        before, truth = net(x), exactly(net, x)
        for scaling in (1.0, 1.0, 0.5):  # the second time from what the first left
            layer.scaling["default"] = scaling
            with lora.fused(net), Kernels() as kernels:
                light = net(x)
            assert len(kernels.names) == 3, kernels.names
            assert "_to_copy" not in kernels.names
        layer.scaling["default"] = 1.0
        with lora.fused(net):
            light = net(x)
        assert (light - truth).square().mean() <= 1.15 * (before - truth).square().mean()
        assert light.is_contiguous() == before.is_contiguous()
        assert torch.equal(net(x), before)


def test_a_light_branch_follows_the_weights_and_an_error_leaves_none() -> None:
    net = nn.Sequential(nn.Linear(8, 8)).to(torch.bfloat16)
    lora.inject(net, LoRA(2, "0"))
    layer, x = lora.layers(net)["0"], torch.ones(1, 8, dtype=torch.bfloat16)
    with torch.no_grad():
        for value in (0.5, 1.0):
            layer.lora_B["default"].weight.fill_(value)
            expected = net(x)
            with lora.fused(net):
                assert torch.allclose(net(x), expected, rtol=1e-2, atol=1e-2)
                with lora.disabled(net):
                    assert torch.equal(net(x), layer.get_base_layer()(x))
        with pytest.raises(ZeroDivisionError), lora.fused(net):
            _ = 1 / 0
    assert not layer.lora_variant
    net(x).sum().backward()
    assert layer.lora_A["default"].weight.grad is not None


def test_rank_zero_leaves_a_side_untouched(tiny: Tiny, tmp_path: Path) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), language_rank=0, vision_rank=4)
    assert bridge.parts()["language"] == []
    assert len(bridge.parts()["vision"]) > 0
    bridge.save(tmp_path / "out")
    assert not (tmp_path / "out" / "language_lora").exists()
    assert Bridge.load(tmp_path / "out").id == bridge.id


def test_trained_parameters_are_float32_beside_bf16_bases(tiny: Tiny) -> None:
    bridge = Bridge.connect(tiny("llama"), tiny("pixart-alpha"), rank=4, dtype="bfloat16")
    assert {p.dtype for p in bridge.trainable_parameters()} == {torch.float32}
    assert bridge.language.dtype == bridge.vision.dtype == torch.bfloat16
    loss = bridge.loss(torch.zeros(1, 3, 16, 16), ["a"])
    assert loss.dtype == torch.float32
    loss.backward()
    assert len(bridge.generate("a", steps=2)) == 1


def test_conv_layers_get_a_spatial_down_and_a_pointwise_up(tiny: Tiny) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=4)
    layer = lora.layers(bridge.vision.backbone)["down_blocks.0.resnets.0.conv1"]
    assert layer.lora_A["default"].weight.shape == (4, 16, 3, 3)
    assert layer.lora_B["default"].weight.shape == (16, 4, 1, 1)


def test_a_rank_above_every_layer_is_refused() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4))
    with pytest.raises(BridgeError, match=r"LoRA rank 7 is above what any layer of .* have: 6"):
        lora.inject(model, LoRA(7, r"\d"))
    assert lora.inject(nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4)), LoRA(5, r"\d")) == 2


def test_small_layers_fold_into_one_product_with_the_same_gradients(tiny: Tiny) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=4, dropout=0.0, device="cpu")
    model = bridge.language.model
    for parameter in lora.parameters(model):
        nn.init.normal_(parameter, std=0.1)
    ids = torch.arange(3, 23).reshape(2, 10)

    def answer() -> list[torch.Tensor]:
        hidden = bridge.language.hidden(ids)
        return [hidden, *torch.autograd.grad(hidden.square().sum(), lora.parameters(model))]

    plain, layer = answer(), next(iter(lora.layers(model).values()))
    with lora.folded(model), whole_gelu(bridge.language.model):
        assert "forward" in vars(layer)
        torch.testing.assert_close(answer(), plain, rtol=1e-4, atol=1e-4)
    assert "forward" not in vars(layer)
    assert all(map(torch.equal, answer(), plain))


@pytest.mark.parametrize("changes", [{"dropout": 0.1}, {"dtype": "bfloat16"}])
def test_layers_with_dropout_or_in_half_precision_do_not_fold(
    tiny: Tiny, changes: dict[str, Any]
) -> None:
    bridge = Bridge.connect(
        tiny("t5"), tiny("sd"), rank=4, device="cpu", **({"dropout": 0.0} | changes)
    )
    with lora.folded(bridge.language.model):
        assert not any("forward" in vars(x) for x in lora.layers(bridge.language.model).values())


def test_a_wide_layer_keeps_its_narrow_branch() -> None:
    net = nn.Sequential(nn.Linear(512, 512), nn.Linear(32, 32))
    lora.inject(net, LoRA(4, r"\d", 0.0))
    with lora.folded(net):
        assert ["forward" in vars(layer) for layer in lora.layers(net).values()] == [False, True]
