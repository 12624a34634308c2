"""Between two bridges of one pair: linear in all that they learned, and each at its end."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.bridge import lora
from lavi_bridge.cli import main as cli

Tiny = Callable[[str], Path]
PAIR: dict[str, Any] = {"language": "t5", "vision": "sd"}


def saved(folder: Path, tiny: Tiny, number: int = 0, **changes: Any) -> Path:
    """A bridge as training leaves it: all that it learns has moved, each number in its own way."""
    options: dict[str, Any] = {"rank": 3, "device": "cpu", "dropout": 0.1} | PAIR | changes
    models = [tiny(options.pop(side)) for side in PAIR]
    bridge = Bridge.connect(*models, seed=number, **options)
    generator = torch.Generator().manual_seed(number)
    for parameter in bridge.trainable_parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    bridge.save(folder)
    return folder


@pytest.fixture(scope="module")
def ends(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two bridges of one pair, of ranks 3 and 5."""
    root = tmp_path_factory.mktemp("ends")
    return saved(root / "a", tiny, 1), saved(root / "b", tiny, 2, rank=5)


def changes(bridge: Bridge) -> dict[str, Tensor]:
    """All that a bridge adds to its models: the adapter's weights, and BA of every layer."""
    found = dict(bridge.adapter.state_dict())
    for side in (bridge.language, bridge.vision):
        for name, layer in lora.layers(side.trunk).items():
            found[f"{type(side).__name__} {name}"] = layer.get_delta_weight("default")
    return {name: tensor.detach() for name, tensor in found.items()}


def drawn(bridge: Bridge) -> np.ndarray:
    (image,) = bridge.generate("a red circle", steps=2, guidance=2.0)
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_what_is_added_is_linear(ends: tuple[Path, Path], t: float) -> None:
    between = changes(Bridge.interpolated(*ends, t, device="cpu"))
    a, b = (changes(Bridge.load(end, device="cpu")) for end in ends)
    assert between.keys() == a.keys()
    for name, found in between.items():
        torch.testing.assert_close(found, (1 - t) * a[name] + t * b[name], rtol=1e-5, atol=1e-6)


def test_at_its_ends_it_draws_what_the_two_draw(ends: tuple[Path, Path], tmp_path: Path) -> None:
    pictures = [drawn(Bridge.load(end, device="cpu")) for end in ends]
    assert abs(pictures[0] - pictures[1]).max() > 1
    for t, picture in enumerate(pictures):
        bridge = Bridge.interpolated(*ends, t, device="cpu")
        assert abs(drawn(bridge) - picture).max() <= 1
    middle = drawn(Bridge.interpolated(*ends, 0.5, device="cpu"))
    assert all(abs(middle - picture).max() > 1 for picture in pictures)


def test_one_end_may_be_of_an_older_version_or_published(
    ends: tuple[Path, Path], tmp_path: Path
) -> None:
    older, published = (shutil.copytree(end, tmp_path / end.name) for end in ends)
    record = json.loads((older / "bridge.json").read_text())
    del record["parameters"], record["language"]["licence"]
    (older / "bridge.json").write_text(json.dumps(record))
    record = json.loads((published / "bridge.json").read_text())
    record["vision"]["licence"] = "mit"
    (published / "bridge.json").write_text(json.dumps(record | {"files": ["bridge.json"]}))
    Bridge.interpolated(older, published, 0.5, device="cpu")


def test_it_is_a_bridge_like_any_other_and_says_what_it_is(
    ends: tuple[Path, Path], tmp_path: Path
) -> None:
    bridge = Bridge.interpolated(*ends, 0.25, device="cpu")
    bridge.save(tmp_path / "between")
    again = Bridge.load(tmp_path / "between", device="cpu")
    assert again.id == bridge.id
    assert np.array_equal(drawn(again), drawn(bridge))
    assert again.language.lora
    assert again.vision.lora
    assert (again.language.lora.rank, again.vision.lora.rank) == (8, 8)
    ids = [Bridge.load(end, device="cpu").id for end in ends]
    assert again.training_summary == {
        "interpolated_from": ids[0],
        "interpolated_to": ids[1],
        "interpolated_at": 0.25,
    }
    assert ids[1] in (tmp_path / "between" / "README.md").read_text(encoding="utf-8")
    again.loss(torch.zeros(1, 3, 16, 16), ["a"]).backward()  # it can be trained on
    assert all(p.grad is not None for p in again.parts()["vision"])


def test_plain_peft_reads_its_lora(ends: tuple[Path, Path], tmp_path: Path) -> None:
    from peft import PeftConfig

    Bridge.interpolated(*ends, 0.5, device="cpu").save(tmp_path / "between")
    config: Any = PeftConfig.from_pretrained(str(tmp_path / "between" / "vision_lora"))
    assert (config.r, config.lora_alpha) == (8, 8)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"language": "llama"}, "language, family is T5 in the first, Decoder in the second"),
        ({"vision": "sd2-v"}, "vision, fingerprint is"),
        ({"adapter": "linear"}, "adapter is feedforward in the first, linear in the second"),
        ({"tokens": 20}, "(tokens|padding) is 77 in the first, 20 in the"),
        ({"language_rank": 0}, "language, lora is .* in the first, None in the second"),
        ({"language_layers": "last:1"}, "language, lora is"),
    ],
)
def test_bridges_of_two_kinds_are_refused(
    ends: tuple[Path, Path], tiny: Tiny, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    other = saved(tmp_path / "other", tiny, **change)
    with pytest.raises(BridgeError, match=f"nothing lies between .*: {reason}") as caught:
        Bridge.interpolated(ends[0], other, 0.5, device="cpu")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_between_is_refused(
    ends: tuple[Path, Path], tiny: Tiny, tmp_path: Path
) -> None:
    with pytest.raises(BridgeError, match=r"between two bridges lie 0 to 1, not 1\.5"):
        Bridge.interpolated(*ends, 1.5)
    wide = saved(tmp_path / "wide", tiny, language_rank=30)
    with pytest.raises(BridgeError, match="LoRA rank 60 is above what any layer of"):
        Bridge.interpolated(wide, wide, 0.5, device="cpu")


def test_the_command_line_writes_it(
    ends: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "between"
    command = ["lavi-bridge", "interpolate", *map(str, ends), "--at", "0.75", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    cli.main()
    assert Bridge.load(out, device="cpu").id in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*command[:-3], "2", *command[-2:]])
    with pytest.raises(SystemExit):
        cli.main()
    assert "'at' must be at most 1" in capsys.readouterr().err
