"""Exactness: the published code's own numbers, for all three pairs, through the public API.

`tests/golden/<pair>` holds small random models with a checkpoint in the published format and what
the published code (LaVi-Bridge@5a725f3, diffusers 0.24, transformers 4.38) computes with it.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from lavi_bridge import Bridge, BridgeError, Text
from lavi_bridge.bridge import lora
from lavi_bridge.cli.train import train_config
from lavi_bridge.data.examples import Batch
from lavi_bridge.train.guards import Guards
from lavi_bridge.train.run import Run
from tests.conftest import GOLDEN

PAIRS = ("t5_unet", "llama2_unet", "t5_pixart")


def published(pair: str) -> Bridge:
    base = GOLDEN / pair / "base"
    return Bridge.from_published(
        GOLDEN / pair / "checkpoint", language=base / "language", vision=base / "vision"
    )


def converted(pair: str, folder: Path) -> Bridge:
    published(pair).save(folder / "saved")
    return Bridge.load(folder / "saved")


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["from_published", "save and load"])
def bridge(request: pytest.FixtureRequest, pair: str, tmp_path: Path) -> Bridge:
    return published(pair) if request.param == "from_published" else converted(pair, tmp_path)


def golden(pair: str, name: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / pair / f"{name}.safetensors")


def encoded(bridge: Bridge, ids: Tensor, mask: Tensor | None) -> Text:
    mask = mask if bridge.vision.masks else None
    return Text(bridge.adapter(bridge.language.hidden(ids, mask)), mask)


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@torch.no_grad()
def test_hidden_states_adapter_and_prediction_are_the_published(bridge: Bridge, pair: str) -> None:
    want = golden(pair, "forward")
    mask = want["attention_mask"] if bridge.vision.masks else None
    hidden = bridge.language.hidden(want["input_ids"], mask)
    text = Text(bridge.adapter(hidden), mask)
    noised = bridge.vision.noise(want["x0"], want["timesteps"], noise=want["noise"])
    prediction = bridge.vision.predict(noised.x_t, noised.timesteps, text)
    assert (hidden - want["language_hidden"]).abs().max() < 1e-5
    assert (text.hidden - want["adapter_out"]).abs().max() < 1e-5
    assert (noised.x_t - want["noisy"]).abs().max() < 1e-5
    assert (prediction - want["prediction"]).abs().max() < 1e-5


def test_loss_and_every_gradient_are_the_published(bridge: Bridge, pair: str) -> None:
    want, gradients = golden(pair, "forward"), golden(pair, "gradients")
    text = encoded(bridge, want["input_ids"], want["attention_mask"])
    loss = bridge.loss(
        latents=want["x0"], text=text, noise=want["noise"], timesteps=want["timesteps"]
    )
    assert loss.item() == pytest.approx(float(want["loss"]), abs=1e-5)
    loss.backward()
    assert distance(gradients_of(bridge, pair), gradients) < 1e-4


def test_the_training_loop_has_the_published_gradients(
    pair: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The paper's recipe from the command line's settings to the optimizer, dropout off."""
    base, want = GOLDEN / pair / "base", golden(pair, "forward")
    (tmp_path / "a.tsv").write_text("a.png\ta\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    flags = [
        "--recipe",
        "paper",
        "--language",
        base / "language",
        "--vision",
        base / "vision",
        "--data",
        tmp_path / "a.tsv",
        "--out",
        tmp_path / "run",
        "--steps",
        1,
        "--dropout",
        0,
        "--batch-size",
        1,
        "--clip",
        1e9,
        "--rank",
        4,
        "--sample-every",
        0,
        "--validate-every",
        0,
        "--tracker",
        "none",
        "--device",
        "cpu",
    ]
    run = Run(train_config(list(map(str, flags))))
    bridge = run.bridge = published(pair)

    def inputs(*_: object) -> Batch:
        text = encoded(bridge, want["input_ids"], want["attention_mask"])
        return Batch(
            latents=want["x0"], text=text, noise=want["noise"], timesteps=want["timesteps"]
        )

    seen = {}
    monkeypatch.setattr("lavi_bridge.train.loss.inputs", inputs)
    switch = bridge.train
    monkeypatch.setattr(bridge, "train", lambda _mode=True: switch(False))  # T5's own dropout
    monkeypatch.setattr(
        Guards, "after_backward", lambda _: seen.update(gradients_of(bridge, pair, copy=True))
    )
    run.train()
    assert distance(seen, golden(pair, "gradients")) < 1e-4


def gradients_of(bridge: Bridge, pair: str, *, copy: bool = False) -> dict[str, Tensor]:
    """By the published names."""
    ours: dict[str, Any] = {}
    for side, model in (("language", bridge.language.model), ("vision", bridge.vision.backbone)):
        for name, layer in lora.layers(model).items():
            # the published code trains the causal model, whose base is called `model`
            prefix = (
                f"{side}.model." if pair == "llama2_unet" and side == "language" else f"{side}."
            )
            ours[f"{prefix}{name}.lora_down.weight"] = layer.lora_A["default"].weight.grad
            ours[f"{prefix}{name}.lora_up.weight"] = layer.lora_B["default"].weight.grad
    for name, parameter in bridge.adapter.named_parameters():
        assert parameter.grad is not None
        ours[f"adapter.{name}"] = parameter.grad
    return {name: gradient.clone() if copy else gradient for name, gradient in ours.items()}


def distance(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest relative one; the names must be the same."""
    assert ours.keys() == theirs.keys()
    return max(relative(ours[name], theirs[name]) for name in ours)


@torch.no_grad()
def test_six_sampled_steps_are_the_published(bridge: Bridge, pair: str) -> None:
    from diffusers import UniPCMultistepScheduler

    forward, want = golden(pair, "forward"), golden(pair, "sampling")
    scheduler = UniPCMultistepScheduler.from_config(
        bridge.vision.process.config,
        timestep_spacing="linspace",  # as UniPC of diffusers 0.24 does
        final_sigmas_type="sigma_min",
    )
    text = encoded(bridge, forward["input_ids"], forward["attention_mask"])
    null = encoded(bridge, want["null_ids"], (want["null_ids"] > 0).long())
    steps = list(
        bridge.sample(text, null, latents=want["start"], scheduler=scheduler, steps=6, guidance=7.5)
    )
    assert [int(step.timestep) for step in steps] == want["timesteps"].tolist()
    assert relative(steps[-1].latents, want["final_latents"]) < 1e-5
    assert relative(bridge.vision.decode(steps[-1].latents), want["decoded"]) < 1e-5


@torch.no_grad()
def test_plain_peft_loads_both_lora_folders(pair: str, tmp_path: Path) -> None:
    from diffusers import PixArtTransformer2DModel, UNet2DConditionModel
    from peft import PeftModel
    from transformers import AutoModel, T5EncoderModel

    bridge, want = converted(pair, tmp_path), golden(pair, "forward")
    base = GOLDEN / pair / "base"
    kind: Any = AutoModel if pair == "llama2_unet" else T5EncoderModel
    model = kind.from_pretrained(base / "language", dtype=torch.float32)
    language = PeftModel.from_pretrained(model, tmp_path / "saved" / "language_lora").eval()
    mask = want["attention_mask"] if bridge.vision.masks else None
    hidden = language(input_ids=want["input_ids"], attention_mask=mask).last_hidden_state
    assert (hidden - want["language_hidden"]).abs().max() < 1e-5

    kind = PixArtTransformer2DModel if pair == "t5_pixart" else UNet2DConditionModel
    folder = "transformer" if pair == "t5_pixart" else "unet"
    backbone = kind.from_pretrained(base / "vision", subfolder=folder)
    bridge.vision.backbone = PeftModel.from_pretrained(
        backbone, tmp_path / "saved" / "vision_lora"
    ).base_model.model
    prediction = bridge.vision.predict(
        want["noisy"], want["timesteps"], Text(want["adapter_out"], mask)
    )
    assert (prediction - want["prediction"]).abs().max() < 1e-5


def checkpoint(
    folder: Path, change: Callable[[list[Tensor]], Any], name: str = "lora_text.pt"
) -> Path:
    """A published checkpoint with one of its lists changed."""
    shutil.copytree(GOLDEN / "t5_unet" / "checkpoint", folder)
    tensors = torch.load(folder / name, weights_only=True)
    torch.save(change(tensors), folder / name)
    return folder


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t[:-2], "7 layers, but .* has 8 to fill: it was trained on another model"),
        (lambda t: t[:-1], "15 tensors"),
        (lambda t: [t[0], t[1][:4], *t[2:]], "at rank 8 needs .*another rank, width or model"),
        (lambda t: [t[0][:5], *t[1:]], r"holds \(5, 8\), but the model at rank 8 needs \(24, 8\)"),
        (lambda t: {"a": 1}, "not a published LoRA file"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_with_the_reason(
    change: Callable[[list[Tensor]], Any], reason: str, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "broken", change)
    base = GOLDEN / "t5_unet" / "base"
    with pytest.raises(BridgeError, match=reason):
        Bridge.from_published(folder, language=base / "language", vision=base / "vision")


def test_the_checkpoint_of_another_pair_is_refused() -> None:
    base = GOLDEN / "llama2_unet" / "base"
    with pytest.raises(BridgeError, match=r"adapter maps 24 to 32, but these models need 32 to 32"):
        Bridge.from_published(
            GOLDEN / "t5_unet" / "checkpoint", language=base / "language", vision=base / "vision"
        )
