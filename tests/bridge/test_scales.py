"""Strengths at sampling: W + scale · BA, exactly, and nothing left behind."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.bridge import lora
from lavi_bridge.bridge.drawing import draw, read_record
from lavi_bridge.cli import main as cli
from lavi_bridge.config import Sampling

Tiny = Callable[[str], Path]
QUICK: dict[str, Any] = {"steps": 2, "guidance": 2.0, "seed": 5}


def trained(bridge: Bridge) -> Bridge:
    """The bridge as if it had been trained: its LoRA has weights that change pictures."""
    torch.manual_seed(0)
    for side in (bridge.language, bridge.vision):
        for layer in lora.layers(side.trunk).values():
            nn.init.normal_(layer.lora_B["default"].weight, std=0.3)
    return bridge


@pytest.fixture(scope="module")
def bridge(tiny: Tiny) -> Bridge:
    return trained(Bridge.connect(tiny("t5"), tiny("sd"), rank=4, device="cpu"))


def drawn(bridge: Bridge, **options: Any) -> np.ndarray:
    (image,) = bridge.generate("a red circle", **QUICK, **options)
    return np.asarray(image)


def state(bridge: Bridge) -> list[Any]:
    """All that drawing could change: weights, strengths, and what stands in for a layer."""
    found = [layer for m in (bridge.language, bridge.vision) for layer in lora.layers(m).values()]
    return [
        [p.clone() for p in bridge.parameters()],
        [(x.scaling["default"], x.disable_adapters, dict(x.lora_variant)) for x in found],
    ]


def same(a: list[Any], b: list[Any]) -> bool:
    return all(map(torch.equal, a[0], b[0])) and bool(a[1] == b[1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_strength_is_the_frozen_model(tiny: Tiny, dtype: str) -> None:
    bridge = trained(Bridge.connect(tiny("t5"), tiny("sd"), rank=4, dtype=dtype, device="cpu"))
    for option, model in (
        ("language_scale", bridge.language.model),
        ("vision_scale", bridge.vision.backbone),
    ):
        with lora.disabled(model):
            frozen = drawn(bridge)
        assert np.array_equal(drawn(bridge, **{option: 0}), frozen)
        assert not np.array_equal(drawn(bridge), frozen)


def test_strength_1_is_as_trained(bridge: Bridge) -> None:
    assert np.array_equal(drawn(bridge, language_scale=1, vision_scale=1.0), drawn(bridge))


@pytest.mark.parametrize("scale", [-0.5, 0.25, 0.5, 1.2])
def test_weights_are_linear_in_the_strength(bridge: Bridge, scale: float) -> None:
    layers = lora.layers(bridge.vision.backbone)
    name = next(n for n, layer in layers.items() if isinstance(layer.get_base_layer(), nn.Linear))
    layer = layers[name]
    weight = layer.get_base_layer().weight.detach().clone()
    change = (layer.lora_B["default"].weight @ layer.lora_A["default"].weight).detach()
    with bridge.scaled(vision=scale), lora.fused(bridge.vision.backbone):
        fused = layer.get_base_layer().weight.detach().clone()
    torch.testing.assert_close(fused, weight + scale * change, rtol=0, atol=1e-6)


def test_either_model_has_a_strength_of_its_own(bridge: Bridge) -> None:
    half = [drawn(bridge, language_scale=0.5), drawn(bridge, vision_scale=0.5)]
    both = drawn(bridge, language_scale=0.5, vision_scale=0.5)
    assert not any(np.array_equal(a, b) for a, b in [half, (half[0], both), (half[1], both)])
    with bridge.scaled(language=0.5):
        assert np.array_equal(drawn(bridge), half[0])


def test_nothing_is_left_between_pictures_after_them_or_after_an_error(bridge: Bridge) -> None:
    before, plain = state(bridge), drawn(bridge)
    pictures = bridge.stream(["a", "b"], **QUICK, batch_size=1, language_scale=0, vision_scale=2)
    next(pictures)
    assert same(state(bridge), before)
    list(pictures)
    assert same(state(bridge), before)

    def fail(_step: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bridge.generate("a", **QUICK, language_scale=0.5, vision_scale=0.5, on_step=fail)
    assert same(state(bridge), before)
    assert np.array_equal(drawn(bridge), plain)


def test_a_model_without_lora_has_no_strength(tiny: Tiny) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), language_rank=0, vision_rank=4)
    with pytest.raises(BridgeError, match=r"language_scale cannot be 0\.5: there is no LoRA in"):
        drawn(bridge, language_scale=0.5)
    assert np.array_equal(drawn(bridge, language_scale=1.0), drawn(bridge))
    with pytest.raises(BridgeError, match="'vision_scale' must be a finite number, not nan"):
        drawn(bridge, vision_scale=float("nan"))
    with pytest.raises(BridgeError, match="'vision_scale' must be a finite number, not inf"):
        Sampling(vision_scale=float("inf"))


# ---- what is added to the own encoder's states


@pytest.fixture(scope="module")
def fusion() -> Bridge:
    """Beside the bundled model's own encoder, as if it had been trained."""
    made = trained(
        Bridge.connect("zoo:tiny-llama", "zoo:tiny-sd", adapter="fusion", rank=4, device="cpu")
    )
    for name in ("add", "gate"):
        nn.init.normal_(getattr(made.adapter, name).weight, std=0.05)
    return made


def test_no_strength_of_the_adapter_is_the_own_encoder(fusion: Bridge) -> None:
    own = Bridge.own("zoo:tiny-sd", device="cpu").encode(["a red circle", ""])
    with fusion.scaled(adapter=0):
        text = fusion.encode(["a red circle", ""])
    assert torch.equal(text.hidden, own.hidden)
    assert text.mask is own.mask is None
    assert not torch.equal(fusion.encode(["a red circle", ""]).hidden, own.hidden)
    drawn_by_own = Bridge.own("zoo:tiny-sd", device="cpu")
    assert np.array_equal(drawn(fusion, adapter_scale=0, vision_scale=0), drawn(drawn_by_own))


def test_addition_and_gate_are_linear_in_the_strength(fusion: Bridge) -> None:
    def at(scale: float) -> torch.Tensor:
        with fusion.scaled(adapter=scale), torch.no_grad():
            return fusion.encode("a red circle").hidden

    plain = fusion.encode("a red circle").hidden.detach()
    assert torch.equal(at(1), plain)
    for scale in (-0.5, 0.5, 2.0):
        torch.testing.assert_close(at(scale), at(0) + scale * (plain - at(0)), rtol=0, atol=1e-5)


def test_a_strength_of_the_adapter_is_put_back(fusion: Bridge) -> None:
    plain = drawn(fusion)
    assert not np.array_equal(drawn(fusion, adapter_scale=0.5), plain)
    with pytest.raises(ZeroDivisionError), fusion.scaled(adapter=0.5):
        raise ZeroDivisionError
    assert np.array_equal(drawn(fusion), plain)


@pytest.mark.parametrize("kind", ["feedforward", "concat"])
def test_an_adapter_that_adds_nothing_has_no_strength(kind: str) -> None:
    bridge = Bridge.connect(
        "zoo:tiny-llama", "zoo:tiny-sd", adapter=kind, rank=0, tokens=32, device="cpu"
    )
    with pytest.raises(BridgeError, match=rf"cannot be 0\.5: the '{kind}' adapter adds nothing to"):
        drawn(bridge, adapter_scale=0.5)
    with pytest.raises(BridgeError, match="'adapter_scale' must be a finite number, not inf"):
        drawn(bridge, adapter_scale=float("inf"))


def test_a_picture_tells_of_the_adapters_strength(fusion: Bridge, tmp_path: Path) -> None:
    weak = Sampling(steps=1, adapter_scale=0.5)
    (record,) = records(draw(fusion, ["a"], tmp_path, weak))
    assert record["adapter_scale"] == 0.5
    assert "language_scale" not in record


# ---- on disk


def records(paths: Iterator[Path]) -> list[dict[str, Any]]:
    return [read_record(path) or {} for path in paths]


def test_a_picture_tells_of_a_strength_other_than_1_alone(bridge: Bridge, tmp_path: Path) -> None:
    plain, weak = Sampling(steps=1), Sampling(steps=1, language_scale=0, vision_scale=0.5)
    (old,) = records(draw(bridge, ["a"], tmp_path, plain))
    (new,) = records(draw(bridge, ["a"], tmp_path, weak))
    assert "language_scale" not in old
    assert new == old | {"language_scale": 0.0, "vision_scale": 0.5}
    assert len(list(tmp_path.iterdir())) == 2


def test_drawing_goes_on_with_the_same_strength(bridge: Bridge, tmp_path: Path) -> None:
    weak = Sampling(steps=1, vision_scale=0)
    paths = list(draw(bridge, ["a", "b"], tmp_path, weak))
    before = [path.read_bytes() for path in paths]
    paths[1].unlink()
    kept = paths[0].stat().st_mtime_ns
    assert list(draw(bridge, ["a", "b"], tmp_path, weak)) == paths
    assert [path.read_bytes() for path in paths] == before
    assert paths[0].stat().st_mtime_ns == kept


def test_the_command_line_takes_strengths(
    bridge: Bridge,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bridge.save(tmp_path / "bridge")
    flags = ["--steps", "1", "--language-scale", "0.5", "--out", str(tmp_path / "png")]
    command = ["lavi-bridge", "generate", str(tmp_path / "bridge"), "a", *flags]
    monkeypatch.setattr(sys, "argv", command)
    cli.main()
    record = read_record(Path(capsys.readouterr().out.strip())) or {}
    assert record["language_scale"] == 0.5
    monkeypatch.setattr(sys, "argv", ["lavi-bridge", "generate", "zoo:tiny-sd", "a", *flags])
    with pytest.raises(SystemExit):
        cli.main()
    assert "there is no LoRA in the language model" in capsys.readouterr().err
