"""Adapters of all kinds between tiny models: they train, are saved, and fit where they can."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lavi_bridge import Bridge, BridgeError, testing, warm_start
from lavi_bridge.adapters import ADAPTERS
from lavi_bridge.text import Text

Tiny = Callable[[str], Path]
KINDS = ("refiner", "resampler", "timed", "concat", "fusion")
PROMPTS = ["a red circle", "two blue squares by a green ring", ""]


def step(bridge: Bridge, seed: int, rate: float = 1e-2) -> None:
    """One step on a picture of noise."""
    side = bridge.vision.resolution
    pixels = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    optimizer = torch.optim.SGD(bridge.trainable_parameters(), lr=rate)
    optimizer.zero_grad()
    bridge.train()
    bridge.loss(pixels, PROMPTS[:2], generator=torch.Generator().manual_seed(seed)).backward()
    optimizer.step()
    bridge.eval()


def pictures(bridge: Bridge, prompts: list[str], batch_size: int = 4) -> np.ndarray:
    images = bridge.generate(prompts, steps=2, guidance=3.0, seed=5, batch_size=batch_size)
    return np.stack([np.asarray(image, int) for image in images])


FIT = [(kind, "sd") for kind in KINDS] + [(KINDS[-1], "lumina2")]
MORE = [
    pytest.param(kind, vision, marks=pytest.mark.slow)
    for kind in KINDS
    for vision in ("lumina2", "pixart-sigma", "sdxl")
    if (kind, vision) not in FIT
]


@pytest.mark.parametrize(
    ("kind", "vision"),
    [*FIT, ("concat", "chroma"), ("fusion", "cogview4"), ("fusion", "wan"), *MORE],
)
def test_it_trains_draws_and_is_saved(
    kind: str, vision: str, whole: Tiny, tiny: Tiny, tmp_path: Path
) -> None:
    bridge = Bridge.connect(
        tiny("llama"), whole(vision), adapter=kind, rank=4, dropout=0.0, tokens=40, device="cpu"
    )
    for seed in range(3):  # LoRA's up and what is added start at zero
        step(bridge, seed)
    for name, parameter in bridge.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name
    together = pictures(bridge, PROMPTS)
    assert np.abs(together - pictures(bridge, PROMPTS, batch_size=1)).max() <= 1
    bridge.save(tmp_path / "bridge")
    again = Bridge.load(tmp_path / "bridge", device="cpu")
    assert again.id == bridge.id
    assert np.abs(pictures(again, PROMPTS) - together).max() <= 1  # where weights lie in memory


@pytest.mark.matrix
@pytest.mark.parametrize("layers", ["last", "penultimate", "mean", "mix", "stack:2"])
@pytest.mark.parametrize("kind", sorted(set(ADAPTERS) - {"identity"}))
@pytest.mark.parametrize("vision", sorted(testing.ENCODERS))
def test_any_adapter_reads_any_layers_for_any_image_model(
    vision: str, kind: str, layers: str, whole: Tiny, tiny: Tiny, tmp_path: Path
) -> None:
    if vision == "prx" and ADAPTERS[kind].needs_own:
        pytest.importorskip("ftfy", reason="PRX's own pipeline needs it")
    try:
        bridge = Bridge.connect(
            tiny("llama"),
            whole(vision),
            adapter=kind,
            layers=layers,
            rank=2,
            dropout=0.0,
            tokens=40,
            device="cpu",
        )
    except BridgeError as error:
        # more tokens than the image model reads, said in a line; nothing else is refused
        if not ADAPTERS[kind].appends or "\n" in str(error):
            raise
        pytest.skip(str(error))
    for seed in range(3):
        step(bridge, seed)
    for name, parameter in bridge.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, name
    drawn = pictures(bridge, PROMPTS[:1])
    bridge.save(tmp_path / "bridge")
    again = Bridge.load(tmp_path / "bridge", device="cpu")
    assert again.id == bridge.id
    # a pooled vector may differ in its last bit, by where in memory its layers lie
    assert np.abs(pictures(again, PROMPTS[:1]) - drawn).max() <= 1


@pytest.mark.parametrize("vision", ["chroma", "lumina2", "pixart-sigma"])
def test_concat_gives_real_tokens_alone(vision: str, whole: Tiny, tiny: Tiny) -> None:
    bridge = Bridge.connect(
        tiny("llama"), whole(vision), adapter="concat", rank=4, tokens=40, device="cpu"
    )
    features = bridge.features(PROMPTS[:1])
    text = bridge.adapt(features)
    assert text.mask is not None
    padding = (1 - text.mask).unsqueeze(-1)
    latents = torch.randn(1, *bridge.vision.latent_shape(*bridge.vision.size))

    def answer(given: Text) -> torch.Tensor:
        return bridge.predict(latents, torch.tensor([500.0]), given)

    noisy = replace(text, hidden=text.hidden + padding * torch.randn_like(text.hidden))
    torch.testing.assert_close(answer(noisy), answer(text))
    other = bridge.adapt(replace(features, hidden=features.hidden.flip(-1)))
    assert not torch.allclose(answer(other), answer(text), atol=1e-6)


@pytest.mark.slow
def test_a_warm_start_of_another_adapter_is_not_taken_over(few: None, tmp_path: Path) -> None:
    def start(kind: str) -> None:
        bridge = Bridge.connect("zoo:tiny-llama", "zoo:tiny-sd", adapter=kind, rank=2, device="cpu")
        captions = ["a red circle", "a ring"]
        warm_start(bridge, captions, match="predictions", steps=1, folder=tmp_path)

    start("feedforward")
    with pytest.raises(BridgeError, match="adapter"):
        start("concat")


@pytest.mark.parametrize("vision", ["sd", "sdxl", "sd3", "flux-dev", "pixart-sigma"])
def test_fusion_begins_as_the_image_model(vision: str, whole: Tiny, tiny: Tiny) -> None:
    bridge = Bridge.connect(tiny("llama"), whole(vision), adapter="fusion", rank=4, device="cpu")
    own = Bridge.own(whole(vision), device="cpu")
    ours, theirs = bridge.encode(PROMPTS), own.encode(PROMPTS)
    assert torch.equal(ours.hidden, theirs.hidden)
    assert (ours.mask is None) == (theirs.mask is None)
    if theirs.pooled is not None:
        assert ours.pooled is not None
        assert torch.equal(ours.pooled, theirs.pooled)
    before = pictures(bridge, PROMPTS)
    assert np.array_equal(before, pictures(own, PROMPTS))
    step(bridge, 0, rate=10.0)
    assert not torch.equal(bridge.encode(PROMPTS).hidden, theirs.hidden)


def test_fusion_draws_what_the_bundled_model_draws() -> None:
    bridge = Bridge.connect("zoo:tiny-llama", "zoo:tiny-sd", adapter="fusion", rank=4, device="cpu")
    own = Bridge.own("zoo:tiny-sd", device="cpu")
    assert np.array_equal(pictures(bridge, PROMPTS), pictures(own, PROMPTS))


@pytest.mark.slow
def test_fusion_draws_384_prompts_as_the_bundled_model_does() -> None:
    from lavi_bridge.prompts.suites import load_suite

    prompts = [prompt.text for prompt in load_suite("shapes")][:384]
    bridge = Bridge.connect("zoo:tiny-llama", "zoo:tiny-sd", adapter="fusion", rank=4, device="cpu")
    own = Bridge.own("zoo:tiny-sd", device="cpu")
    assert len(prompts) == 384
    assert np.array_equal(pictures(bridge, prompts, 48), pictures(own, prompts, 48))


def test_a_timed_bridge_reads_the_prompt_anew_at_every_step(whole: Tiny, tiny: Tiny) -> None:
    bridge = Bridge.connect(tiny("t5"), whole("sd"), adapter="timed", rank=4, device="cpu")
    for seed in range(2):
        step(bridge, seed, rate=1.0)
    text = bridge.encode(PROMPTS[:1])
    early, late = (bridge.adapter.at(text, torch.tensor([t])).hidden for t in (999.0, 1.0))
    assert not torch.allclose(early, late)
    with pytest.raises(BridgeError, match="reads a prompt anew at every step"):
        bridge.prompt_embeds(PROMPTS)
    with pytest.raises(BridgeError, match="match predictions"):
        warm_start(bridge, ["a"], steps=1)


@pytest.mark.parametrize("kind", ["feedforward", *KINDS])
def test_its_size_can_be_asked_for(kind: str) -> None:
    adapter = ADAPTERS[kind].fresh(64, 48, parameters=200_000)
    count = sum(p.numel() for p in adapter.parameters())
    assert 120_000 < count <= 200_000
    with pytest.raises(BridgeError, match="has at least"):
        ADAPTERS[kind].fresh(64, 48, parameters=10)


def test_one_size_is_the_only_one_of_a_linear_layer() -> None:
    with pytest.raises(BridgeError, match="'linear' adapter has one size"):
        ADAPTERS["linear"].fresh(64, 48, parameters=1000)


def test_what_a_family_cannot_take_is_a_line(whole: Tiny, tiny: Tiny) -> None:
    with pytest.raises(BridgeError, match=r"reads 333 tokens at most, .* 'fusion' adapter"):
        Bridge.connect(
            tiny("llama"), whole("sd3"), adapter="concat", rank=4, tokens=40, device="cpu"
        )
    with pytest.raises(BridgeError, match=r"reads 512 tokens at most, .* 'fusion' adapter"):
        Bridge.connect(tiny("llama"), whole("flux-dev"), adapter="concat", rank=4, device="cpu")
    with pytest.raises(BridgeError, match="has no text encoder of its own"):
        Bridge.connect(tiny("llama"), tiny("sd"), adapter="fusion", rank=4, device="cpu")
    with pytest.raises(BridgeError, match="no baseline and no start"):
        Bridge.connect(tiny("llama"), tiny("hidream"), adapter="fusion", rank=4, device="cpu")


def test_pairs_teach_fusion_by_predictions(tiny: Tiny, few: None) -> None:
    bridge = Bridge.connect("zoo:tiny-llama", "zoo:tiny-sd", adapter="fusion", rank=4, device="cpu")
    pairs = [(f"please draw {n} crimson discs", f"{n} red circles") for n in ("one", "two")]
    report = warm_start(bridge, pairs=pairs, match="predictions", steps=2, batch_size=2)
    assert report.predictions
