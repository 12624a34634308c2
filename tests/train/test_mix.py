"""Learned weights of mixed layers, which may stop training after some steps on pictures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lavi_bridge import BridgeError
from lavi_bridge.adapters import ADAPTERS
from lavi_bridge.text import Text
from lavi_bridge.train.optimizer import freeze_mix
from lavi_bridge.train.options import TrainConfig
from lavi_bridge.train.run import Run

Tiny = Callable[[str], Path]
LOGITS = "adapter.mix.logits"


def config(tiny: Tiny, out: Path, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "language": str(tiny("t5")),
        "vision": str(tiny("sd")),
        "data": "shapes",
        "out": out,
        "layers": "mix",
        "rank": 2,
        "steps": 6,
        "batch_size": 2,
        "warmup": 0,
        "lr_adapter": 1e-2,
        "weight_decay": 0.5,
        "validate_every": 0,
        "sample_every": 0,
        "device": "cpu",
        "tracker": "none",
    }
    return TrainConfig(**settings | changes)


def saved(out: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(out / f"step-{step}" / "state.safetensors")


def test_they_move_until_then_and_no_more(tiny: Tiny, tmp_path: Path) -> None:
    Run(config(tiny, tmp_path, mix_frozen_after=3, save_every=3)).train()
    before, after = saved(tmp_path, 3), saved(tmp_path, 6)
    kept = [name for name in before if name.startswith(LOGITS)]
    assert {name.partition("//")[2] for name in kept} == {"", "exp_avg", "exp_avg_sq", "step"}
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert before[LOGITS].any()
    others = [name for name in before if name.startswith("adapter.") and name not in kept]
    assert not any(torch.equal(before[name], after[name]) for name in others)
    assert json.loads((tmp_path / "config.json").read_text())["mix_frozen_after"] == 3


def test_after_no_step_they_stay_alike(tiny: Tiny, tmp_path: Path) -> None:
    bridge = Run(config(tiny, tmp_path, mix_frozen_after=0)).train()
    assert not bridge.adapter.get_parameter("mix.logits").any()


@pytest.mark.parametrize("stop", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_stopped_before_or_after_a_run_ends_with_the_same_bits(
    tiny: Tiny, tmp_path: Path, stop: int
) -> None:
    same = {"mix_frozen_after": 3, "ema": 0.5, "accumulate": 2}
    straight = Run(config(tiny, tmp_path / "straight", **same)).train()
    Run(config(tiny, tmp_path / "parts", **same, steps=stop)).train()
    assert Run(config(tiny, tmp_path / "parts", **same)).train().id == straight.id


@pytest.mark.parametrize(("step", "counted"), [(2, True), (3, False)])
def test_they_count_in_no_norm_of_the_gradient(step: int, counted: bool) -> None:
    adapter = ADAPTERS["linear"](4, 4)
    adapter.mix_layers(3)
    hidden = torch.randn(1, 5, 12, generator=torch.Generator().manual_seed(0))
    adapter.prepare(Text(hidden)).hidden.square().sum().backward()
    of_mix = adapter.get_parameter("mix.logits").grad
    assert of_mix is not None
    assert of_mix.any()
    whole = torch.nn.utils.get_total_norm([p.grad for p in adapter.parameters()])  # type: ignore[misc]
    freeze_mix(adapter, 3, step=step)
    left = torch.nn.utils.clip_grad_norm_(adapter.parameters(), 1.0)
    assert bool(left == whole) is counted


def test_other_layers_have_none_to_freeze(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match=r"'mix_frozen_after' is for layers .* must be mix"):
        config(tiny, tmp_path, layers="mean", mix_frozen_after=3)
    with pytest.raises(BridgeError, match="'mix_frozen_after' must be at least 0, not -1"):
        config(tiny, tmp_path, mix_frozen_after=-1)
