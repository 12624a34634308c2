"""Models block by block: spread over processes, compiled."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Generator

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.running.blocks import blocks, compile_blocks
from lavi_bridge.train.run import Run
from tests.processes import run_distributed
from tests.train.test_train import captions, config, metrics

__all__ = ["captions"]  # a fixture of the training tests

Tiny = Callable[[str], Path]


def far(one: Bridge, two: Bridge) -> float:
    """The largest difference of any trained value."""
    pairs = zip(one.trainable_parameters(), two.trainable_parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


@pytest.mark.parametrize(
    ("family", "first", "count"),
    [("t5", "T5Block", 2), ("llama", "LlamaDecoderLayer", 2), ("clip", "CLIPEncoderLayer", 2)],
)
def test_blocks_of_a_language_model_are_its_layers(
    tiny: Tiny, family: str, first: str, count: int
) -> None:
    bridge = Bridge.connect(tiny(family), tiny("sd"), rank=2, device="cpu")
    found = list(blocks(bridge.language.model))
    assert (type(found[0]).__name__, len(found)) == (first, count)


def test_blocks_of_an_image_model_hold_nearly_all_of_its_weights() -> None:
    for vision in ("zoo:tiny-sd", "zoo:tiny-ldm", "zoo:tiny-pixart"):
        backbone = Bridge.connect("zoo:tiny-clip", vision, rank=0, device="cpu").vision.backbone
        inside = sum(p.numel() for block in blocks(backbone) for p in block.parameters())
        assert inside > 0.8 * sum(p.numel() for p in backbone.parameters())


@pytest.mark.slow
def test_sharded_over_two_processes_it_trains_saves_and_loads_the_same_bridge(
    tiny: Tiny, captions: Path, tmp_path: Path
) -> None:
    """Against one process at twice the batch; it goes on sharded, and then without sharding."""
    one, two = tmp_path / "one", tmp_path / "two"
    flags: list[object] = [
        "train",
        "--out",
        two,
        "--language",
        tiny("llama"),
        "--vision",
        tiny("sd"),
        "--data",
        captions,
        "--dropout",
        0,
        "--rank",
        4,
        "--log-every",
        1,
        "--lr-language",
        1e-4,
        "--device",
        "cpu",
        "--ema",
        0.5,
        "--sample-every",
        5,
        "--sample-steps",
        1,
        "--validate-every",
        5,
        "--tracker",
        "none",
        "--save-every",
        5,
        "--language-rank",
        3,
        "--warmup",
        0,
    ]
    Run(
        config(
            tiny,
            captions,
            one,
            language=str(tiny("llama")),
            dropout=0.0,
            steps=10,
            batch_size=4,
            lr_language=1e-4,
            ema=0.5,
            save_every=5,
            validate_every=5,
            language_rank=3,
            warmup=0,
        )
    ).train()
    for steps in (3, 8):
        run_distributed(*flags, "--batch-size", 2, "--steps", steps, "--shard")
    half = Bridge.load(two)
    run_distributed(*flags, "--batch-size", 2, "--steps", 10)
    alone, together = ([m["loss"] for m in metrics(out) if "loss" in m] for out in (one, two))
    assert together == pytest.approx(alone, abs=1e-5)
    assert far(Bridge.load(one), Bridge.load(two)) <= 1e-6
    assert far(half, Bridge.load(two)) > 1e-5
    looks = [
        {m["step"]: m["probe_loss"] for m in metrics(out) if "probe_loss" in m}
        for out in (one, two)
    ]
    assert looks[0][5] == pytest.approx(looks[1][5], abs=1e-5)
    assert (two / "samples" / "000005.png").is_file()


def test_sharding_needs_several_processes(tiny: Tiny, captions: Path, tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match=r"'shard' .* there is one: start with `torchrun"):
        Run(config(tiny, captions, tmp_path / "run", shard=True))


@pytest.mark.parametrize("name", ["one-machine", "many-machines"])
def test_the_accelerate_configurations_are_valid(name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    path = Path(__file__).parents[2] / "examples" / "accelerate" / f"{name}.yaml"
    found = load_config_from_file(str(path))
    assert found.distributed_type == "MULTI_GPU"
    assert found.num_processes == 8 * found.num_machines


@pytest.mark.large
@pytest.mark.filterwarnings("default")  # the compiler looks at what it should not
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs g++")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_blocks_have_the_same_gradients(tiny: Tiny, checkpointing: bool) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("pixart-alpha"), rank=4, dropout=0.0, device="cpu")
    latents = torch.randn(2, *bridge.vision.latent_shape(32, 32))

    def gradients() -> list[torch.Tensor]:
        generators = [Generator().manual_seed(i) for i in range(2)]
        loss = bridge.loss(latents=latents, captions=["a", "red wall"], generator=generators)
        loss.backward()
        parameters = bridge.trainable_parameters()
        found = [p.grad.clone() for p in parameters if p.grad is not None]
        for parameter in parameters:
            parameter.grad = None
        return found

    if checkpointing:
        bridge.checkpoint_activations()
        bridge.train()
        for module in bridge.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if isinstance(getattr(module, "dropout", None), float):  # T5's attention
                module.dropout = 0.0  # type: ignore[assignment]
    expected = gradients()
    assert compile_blocks([bridge.language.model, bridge.vision.backbone], "blocks") == 4
    for ours, theirs in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
