"""Drawing with each model on the device only while it is used, on a simulated GPU."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.bridge.bridge import Step
from lavi_bridge.cli.draw import generate
from tests.fake_cuda import FakeCuda

Tiny = Callable[[str], Path]
HERE, THERE = {"cpu"}, {"cuda:0"}


def devices(*modules: torch.nn.Module) -> set[str]:
    return {str(t.device) for module in modules for t in [*module.parameters(), *module.buffers()]}


@pytest.mark.parametrize("vision", ["sd", "flux-dev"])
@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_models_take_turns_on_the_gpu_and_draw_the_same(
    vision: str, dtype: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # bfloat16 is rounded in other places where the CPU computes it in float32
    monkeypatch.setattr("lavi_bridge.running.widened.needs_widening", lambda: False)
    made = Bridge.connect(tiny("t5"), tiny(vision), rank=4, dtype=dtype, device="cpu")
    for parameter in made.trainable_parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    made.save(tmp_path / "bridge")
    expected = made.generate(["one", "two"], steps=2, batch_size=1)
    turns: list[str] = []
    with FakeCuda() as gpu:
        bridge = Bridge.load(tmp_path / "bridge", dtype=dtype, device="cuda", offload=True)
        image = bridge.vision
        parts = {
            "language": [bridge.language, bridge.adapter],
            "backbone": [image.backbone],
            "vae": [image.vae],
        }
        assert devices(bridge) == HERE

        def note(*_: object) -> None:
            there = [name for name, modules in parts.items() if devices(*modules) == THERE]
            assert all(devices(*parts[name]) == HERE for name in parts.keys() - there)
            turns.append("+".join(there))

        bridge.language.model.register_forward_pre_hook(note)
        bridge.adapter.register_forward_pre_hook(note)
        image.vae.decoder.register_forward_pre_hook(note)
        steps: Callable[[Step], object] = note
        drawn = bridge.generate(["one", "two"], steps=2, batch_size=1, on_step=steps)
        assert devices(bridge) == HERE
        assert gpu.operations > 0
    assert turns == ["language"] * 4 + ["backbone"] * 2 + ["vae"] + turns[7:]
    assert turns[7:] == turns[:7]
    for ours, theirs in zip(drawn, expected, strict=True):
        assert np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max() <= 1


def test_on_a_cpu_nothing_moves(tiny: Tiny) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=4, device="cpu")
    before = bridge.generate("red", steps=2)[0]
    after = bridge.offload("cpu").generate("red", steps=2)[0]
    assert np.array_equal(np.asarray(before), np.asarray(after))


def test_what_is_held_in_few_bits_stays_where_it_was_made(tiny: Tiny) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=4, quantize_vision="nf4", device="cpu")
    weight = next(p for p in bridge.vision.backbone.parameters() if not p.is_floating_point())
    kept, address = weight, weight.data_ptr()
    assert len(bridge.offload("cpu").generate("red", steps=1)) == 1
    assert any(p is kept and p.data_ptr() == address for p in bridge.vision.backbone.parameters())


def test_graphs_and_offload_exclude_each_other() -> None:
    with pytest.raises(BridgeError, match="which 'offload' changes; compile blocks"):
        generate(["zoo:tiny-sd", "red", "--offload", "--compile", "graphs"])
