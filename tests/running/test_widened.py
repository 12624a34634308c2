"""Products in bfloat16 where the processor has none: in float32, and rounded once."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lavi_bridge import Bridge
from lavi_bridge.running import widened
from lavi_bridge.running.widened import WideConv2d, WideLinear, widen

LAYERS: list[Callable[[], nn.Module]] = [
    lambda: nn.Linear(24, 40),
    lambda: nn.Linear(24, 40, bias=False),
    lambda: nn.Conv2d(24, 40, 3, padding=1),
    lambda: nn.Conv2d(24, 40, 3, stride=2, padding=1, bias=False),
    lambda: nn.Conv2d(24, 24, 1, groups=4),
]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor without bfloat16, whichever this is."""
    monkeypatch.setattr(widened, "needs_widening", lambda: True)


@pytest.mark.parametrize("make", LAYERS)
def test_a_widened_layer_gives_what_float32_gives_rounded_once(
    slow: None, make: Callable[[], nn.Module]
) -> None:
    torch.manual_seed(0)
    layer = make().bfloat16().requires_grad_(False)
    shape = (2, 24) if isinstance(layer, nn.Linear) else (2, 24, 8, 8)
    x = torch.randn(shape).bfloat16().requires_grad_()
    model = nn.Sequential(layer)
    exact = nn.Sequential(make()).requires_grad_(False)
    exact.load_state_dict(model.state_dict())
    wide = x.detach().float().requires_grad_()
    expected = exact(wide)
    expected.sum().backward()

    widen(model)
    assert type(model[0]) in (WideLinear, WideConv2d)
    found = model(x)
    found.sum().backward()
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected.bfloat16())
    assert x.grad is not None
    assert wide.grad is not None
    assert torch.equal(x.grad, wide.grad.bfloat16())


def test_weights_keep_their_type_and_others_their_way(slow: None) -> None:
    model = nn.ModuleDict({"frozen": nn.Linear(8, 8).bfloat16(), "float32": nn.Linear(8, 8)})
    names = list(model.state_dict())
    widen(model)
    assert type(model["frozen"]) is WideLinear
    assert type(model["float32"]) is nn.Linear
    assert list(model.state_dict()) == names
    assert model["frozen"].weight.dtype == torch.bfloat16
    # a weight that trains has a gradient, as ever
    model["frozen"](torch.ones(1, 8).bfloat16()).sum().backward()
    assert model["frozen"].weight.grad is not None


def test_a_bridge_in_bfloat16_is_widened_and_trains(slow: None, tmp_path: Path) -> None:
    bridge = Bridge.connect("zoo:tiny-llama", "zoo:tiny-sd", rank=2, dtype="bfloat16", device="cpu")
    layers = [type(layer) for layer in bridge.modules()]
    assert layers.count(WideConv2d) > 10
    assert layers.count(WideLinear) > 10
    bridge.train()
    loss = bridge.loss(torch.zeros(1, 3, 64, 64), ["a red circle"])
    loss.backward()
    exact = Bridge.connect("zoo:tiny-llama", "zoo:tiny-sd", rank=2, device="cpu")
    assert set(exact.state_dict()) == set(bridge.state_dict())
    bridge.save(tmp_path / "saved")
    assert Bridge.load(tmp_path / "saved", device="cpu").id == bridge.id


def test_nothing_is_widened_where_the_processor_multiplies_bfloat16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    model = nn.Sequential(nn.Linear(8, 8).bfloat16())
    widen(model)
    assert type(model[0]) is nn.Linear


def test_a_bias_that_trains_beside_a_frozen_weight_has_a_gradient(slow: None) -> None:
    model = nn.Sequential(nn.Linear(8, 8).bfloat16())
    widen(model)
    model[0].weight.requires_grad_(False)
    model(torch.ones(1, 8).bfloat16()).sum().backward()
    assert model[0].bias.grad is not None
