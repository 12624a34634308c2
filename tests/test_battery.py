"""One battery over every registered family: what must hold for any pair.

By default each language meets the SD U-Net and each vision model meets T5; the linear adapter meets
what masks padding, what does not, and a pooled vector. `pytest -m matrix` runs every pair.
"""

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lavi_bridge import Bridge, testing
from lavi_bridge.files.locate import ZOO

ADAPTERS = ("feedforward", "linear")
PAIRS = [(language, "sd") for language in testing.LANGUAGES]
PAIRS += [("t5", vision) for vision in testing.VISIONS if vision != "sd"]
STAR = [(*pair, ADAPTERS[0]) for pair in PAIRS]
LINEAR = [("t5", "sd"), ("llama", "sd"), ("t5", "pixart-alpha"), ("t5", "sd3")]
STAR += [(*pair, ADAPTERS[1]) for pair in LINEAR]
MATRIX = set(itertools.product(testing.LANGUAGES, testing.VISIONS, ADAPTERS)) - set(STAR)
BUNDLED = sorted(
    (language.parent.name, vision.parent.name)
    for language in ZOO.glob("tiny-*/config.json")
    for vision in ZOO.glob("tiny-*/model_index.json")
)
"""Of which each language meets `tiny-sd`, and `tiny-llama` each vision model, by default."""

Tiny = Callable[[str], Path]


def frozen_checksum(bridge: Bridge) -> str:
    digest = hashlib.sha256()
    trained = {name for name, p in bridge.named_parameters() if p.requires_grad}
    for name, tensor in bridge.state_dict().items():  # buffers, too
        if name not in trained:
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def battery(bridge: Bridge, out: Path) -> None:
    before = frozen_checksum(bridge)
    side = bridge.vision.resolution
    pixels = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    optimizer = torch.optim.AdamW(bridge.trainable_parameters(), lr=1e-3)
    bridge.train()
    for step in range(2):
        optimizer.zero_grad()
        loss = bridge.loss(
            pixels, ["a red circle", ""], generator=torch.Generator().manual_seed(step)
        )
        loss.backward()
        if step == 1:  # at the first step LoRA's up is zero, so down has no gradient yet
            for name, parameter in bridge.named_parameters():
                if parameter.requires_grad:
                    assert parameter.grad is not None, name
                    assert parameter.grad.any(), name
        optimizer.step()
    bridge.eval()

    prompts = ["one", "a second, longer one", ""]
    together = [np.asarray(image, int) for image in bridge.generate(prompts, steps=2, seed=5)]
    alone = np.asarray(bridge.generate(prompts[1:2], steps=2, seed=6)[0], int)
    assert np.abs(together[1] - alone).max() <= 1
    assert all(image.shape == (side, side, 3) for image in together)
    assert frozen_checksum(bridge) == before

    text = bridge.encode(prompts)
    assert text.hidden.isfinite().all()
    latents = torch.randn(3, *bridge.vision.latent_shape(side, side))
    *_, last = bridge.sample(
        text,
        text,
        latents=latents,
        scheduler=bridge.vision.default_scheduler,
        steps=2,
        guidance=3.0,
    )
    assert last.latents.isfinite().all()

    bridge.save(out)
    again = Bridge.load(out)
    assert again.id == bridge.id
    for (name, ours), (other, theirs) in zip(
        bridge.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize(("language", "vision", "adapter"), STAR)
def test_a_pair_trains_samples_saves_and_loads(
    language: str, vision: str, adapter: str, tiny: Tiny, tmp_path: Path
) -> None:
    battery(Bridge.connect(tiny(language), tiny(vision), adapter=adapter, rank=4), tmp_path / "out")


@pytest.mark.matrix
@pytest.mark.parametrize(("language", "vision", "adapter"), sorted(MATRIX))
def test_any_pair_trains_samples_saves_and_loads(
    language: str, vision: str, adapter: str, tiny: Tiny, tmp_path: Path
) -> None:
    battery(Bridge.connect(tiny(language), tiny(vision), adapter=adapter, rank=4), tmp_path / "out")


@pytest.mark.parametrize(
    ("language", "vision"),
    [
        pytest.param(
            *pair, marks=() if "tiny-llama" in pair or "tiny-sd" in pair else pytest.mark.matrix
        )
        for pair in BUNDLED
    ],
)
def test_bundled_models_pair_with_each_other(language: str, vision: str, tmp_path: Path) -> None:
    bridge = Bridge.connect(f"zoo:{language}", f"zoo:{vision}", rank=4, seed=1)
    battery(bridge, tmp_path / "out")


def test_every_bundled_pair_is_here() -> None:
    assert len(BUNDLED) == 5 * 3


def test_the_battery_covers_every_registered_family() -> None:
    from lavi_bridge.languages import LANGUAGES
    from lavi_bridge.visions import VISIONS

    aliases = {"default"}  # three models in testing take it
    assert set(LANGUAGES) - aliases <= set(testing.LANGUAGES)
    assert set(VISIONS) == {pipeline for pipeline, *_ in testing.VISIONS.values()}
