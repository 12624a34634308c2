"""What families differ in: conditions, padding, time shifts, guidance, and their autoencoders."""

import inspect
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.bridge.parts import Parts
from lavi_bridge.files.locate import locate
from lavi_bridge.plan.plan import make_plan
from lavi_bridge.testing import make_vision
from lavi_bridge.text import Text
from lavi_bridge.visions import Vision, load_vision
from lavi_bridge.visions.hunyuan_dit import corners
from lavi_bridge.visions.noise.process import Flow, process
from lavi_bridge.visions.patches import pack, places, unpack
from tests.visions import checks

Tiny = Callable[[str], Path]


def loaded(folder: Path) -> Vision:
    return load_vision(locate(folder), dtype=torch.float32).eval()


def joined(tiny: Tiny, vision: str) -> Bridge:
    return Bridge.connect(tiny("t5"), tiny(vision), rank=4, dtype="float32", device="cpu")


def watched(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the backbone is called with, from now on."""
    calls: list[tuple[Any, ...]] = []
    real = bridge.vision.call

    def call(*given: Any) -> Any:
        calls.append(given)
        return real(*given)

    monkeypatch.setattr(bridge.vision, "call", call)
    return calls


# ---- autoencoders


@pytest.mark.parametrize("name", ["sdxl-statistics", "qwen-image", "sd3"])
def test_latents_are_normalised_and_put_back(name: str, tiny: Tiny) -> None:
    vision = loaded(tiny(name))
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, std = vision.moments(pixels)
    assert mean.ndim == 4
    drawn = vision.draw(mean, std, torch.Generator().manual_seed(1))
    assert torch.equal(drawn, vision.encode(pixels, torch.Generator().manual_seed(1)))
    config = vision.vae.config
    if config.get("latents_mean"):
        shift, deviation = (torch.tensor(config[k]) for k in ("latents_mean", "latents_std"))
        wanted = (mean[0, :, 0, 0] - shift) / deviation * (config.get("scaling_factor") or 1.0)
    else:
        wanted = (mean[0, :, 0, 0] - config.shift_factor) * config.scaling_factor
    torch.testing.assert_close(vision.draw(mean, None)[0, :, 0, 0], wanted)
    frames = mean.unsqueeze(2) if name == "qwen-image" else mean
    with torch.no_grad():
        direct = vision.vae.decode(frames).sample
    direct = direct.squeeze(2) if name == "qwen-image" else direct
    torch.testing.assert_close(vision.decode(vision.draw(mean, None)), direct, rtol=1e-4, atol=1e-4)


def test_squares_have_the_statistics_of_a_batch_norm(tiny: Tiny) -> None:
    vision = loaded(tiny("flux2"))
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, std = vision.moments(pixels)
    assert mean.shape == (1, 8, 8, 8)
    latents = vision.draw(mean, None)
    assert latents.shape[1:] == vision.latent_shape(64, 64) == (32, 4, 4)
    norm = vision.vae.bn
    deviation = (norm.running_var + norm.eps).sqrt()
    square = mean[0, :, 2:4, 4:6].reshape(32)  # (C, row, column)
    torch.testing.assert_close(latents[0, :, 1, 2], (square - norm.running_mean) / deviation)
    with torch.no_grad():
        direct = vision.vae.decode(mean).sample
    torch.testing.assert_close(vision.decode(latents), direct, rtol=1e-4, atol=1e-4)
    seeds = (torch.Generator().manual_seed(1) for _ in range(2))
    drawn = vision.draw(mean, std, next(seeds))
    assert torch.equal(drawn, vision.encode(pixels, next(seeds)))


def test_tokens_of_four_latents_and_back() -> None:
    x = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    tokens = pack(x)
    assert tokens.shape == (2, 6, 12)
    assert tokens[0, 1, :4].tolist() == [2, 3, 8, 9]  # the first channel's second square
    assert torch.equal(unpack(tokens, 4, 6), x)
    assert places(2, 3, x)[4].tolist() == [0, 1, 1]
    assert places(2, 3, x, (1, 10, 20))[4].tolist() == [1, 11, 21]


# ---- times


def test_times_of_training_are_shifted_by_the_pictures_size(tiny: Tiny) -> None:
    """σ' = sσ / (1 + (s - 1)σ), s = e^μ, μ on a line through image tokens."""
    vision = loaded(tiny("flux-dev"))
    assert isinstance(vision.process, Flow)
    plain = vision.process._times(4, torch.Generator().manual_seed(0))
    for side in (8, 32):
        latents = torch.zeros(4, vision.latent_channels, side, side)
        mu = 0.5 + (1.15 - 0.5) * ((side // 2) ** 2 - 256) / (4096 - 256)
        assert vision.mu(side, side) == pytest.approx(mu)
        shift = math.exp(mu)
        times = vision.noise(latents, generator=torch.Generator().manual_seed(0)).timesteps
        torch.testing.assert_close(times / 1000, shift * plain / (1 + (shift - 1) * plain))


def test_one_shift_for_all_sizes_stays_one(tiny: Tiny) -> None:
    vision = loaded(tiny("sd3"))
    assert vision.mu(8, 8) is None
    assert isinstance(vision.process, Flow)
    assert vision.process.shift_of(None) == 3.0


def test_a_linear_shift_is_taken_as_it_is(tiny: Tiny) -> None:
    vision = loaded(tiny("cogview4"))
    assert isinstance(vision.process, Flow)
    mu = vision.mu(32, 32)  # 256 tokens
    assert mu == pytest.approx(1.0)
    assert vision.process.shift_of(mu) == mu


@pytest.mark.parametrize("side", [8, 32, 100])
def test_flux2s_shift_depends_on_the_steps_too(side: int, tiny: Tiny) -> None:
    from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

    vision = loaded(tiny("flux2"))
    for steps in (4, 50):
        wanted = compute_empirical_mu(side**2, steps)
        assert vision.mu(side, side, steps) == pytest.approx(wanted)
    assert vision.mu(side, side) == vision.mu(side, side, 50)


def test_a_model_of_few_steps_has_one_shift_where_its_folder_says_so(
    tiny: Tiny, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny("krea2"), tmp_path / "krea")
    assert loaded(folder).mu(8, 8) != 1.15
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"is_distilled": True}))
    assert loaded(folder).mu(8, 8) == 1.15


@pytest.mark.parametrize("name", ["flow-euler", "unipc", "dpm++"])
def test_samplers_are_told_what_the_config_says_of_times(name: str, tiny: Tiny) -> None:
    vision = loaded(tiny("flux-dev"))
    scheduler = vision.process.scheduler(name)
    assert scheduler.config.use_dynamic_shifting
    sigmas = []
    for side in (8, 64):
        vision.start(scheduler, 4, torch.zeros(1, vision.latent_channels, side, side))
        sigmas.append(float(scheduler.sigmas[1]))
    assert sigmas[0] < sigmas[1]


# ---- conditions


def test_a_pooled_vector_follows_the_tokens_that_are_read(tiny: Tiny) -> None:
    bridge = joined(tiny, "sd3")
    assert bridge.encode(["a"]).pooled is not None
    hidden = torch.randn(1, 4, bridge.language.width)
    mask = torch.tensor([[1, 1, 0, 0]])
    long, short = (bridge.adapter.read(Text(*x)) for x in ((hidden, mask), (hidden[:, :2],)))
    torch.testing.assert_close(long.pooled, short.pooled)
    without = joined(tiny, "sd")
    assert without.adapter.width_pooled == 0
    assert without.encode(["a"]).pooled is None


def test_further_sequences_go_with_the_first() -> None:
    """Cast, repeated and joined as it is, at any depth."""

    def text(tokens: int) -> Text:
        return Text(torch.ones(1, tokens, 3), more=(Text(torch.ones(1, tokens, 5)),))

    (both,) = Text.cat([text(2), text(4)]).more
    assert both.hidden.shape == (2, 4, 5)
    assert both.mask is not None
    assert both.mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert text(2).expand(3).more[0].hidden.shape == (3, 2, 5)
    assert text(2).to(dtype=torch.bfloat16).more[0].hidden.dtype == torch.bfloat16


@pytest.mark.parametrize("adapter", ["feedforward", "linear"])
def test_each_further_sequence_has_an_adapter_of_the_same_kind(
    adapter: str, tiny: Tiny, tmp_path: Path
) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("hidream"), adapter=adapter, rank=4)
    text = bridge.encode(["a"])
    assert text.pooled is not None
    assert [one.hidden.shape[-1] for one in (text, *text.more)] == [24, 20]
    assert [one.kind for one in bridge.adapter.further] == [adapter]
    told = {}
    for name, joint in (("hidream", bridge), ("sd", joined(tiny, "sd"))):
        joint.adapter.save(tmp_path / name)
        told[name] = json.loads((tmp_path / name / "config.json").read_text())
    assert told["hidream"]["more_dims"] == [20]
    assert "more_dims" not in told["sd"], "bridges of one sequence are saved as ever"


def test_hunyuan_dit_reads_two_lengths_and_no_others(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = joined(tiny, "hunyuan-dit")
    calls = watched(bridge, monkeypatch)
    features = bridge.features(["a longer caption", "a"], trim=True)
    bridge.vision.predict(torch.zeros(2, 4, 8, 8), torch.tensor(500), bridge.adapt(features))
    read = calls[-1][2]
    assert (read.hidden.shape[1], read.more[0].hidden.shape[1]) == (17, 64)
    assert features.hidden.shape[1] == 24
    assert features.mask is not None
    real = int(features.mask[1].sum())
    assert read.more[0].mask[1].sum() == real
    assert not read.more[0].hidden[1, real:].any(), "it is pooled without a mask"


@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 64), (40, 24), (21, 40)])
def test_hunyuan_dits_places_lie_in_the_middle_of_a_square(height: int, width: int) -> None:
    from diffusers.pipelines.hunyuandit import pipeline_hunyuandit

    wanted = pipeline_hunyuandit.get_resize_crop_region_for_grid((height, width), 32)
    assert corners(height, width, 32) == wanted


def test_a_class_without_gradient_checkpointing_says_so(tiny: Tiny) -> None:
    with pytest.raises(BridgeError, match="HunyuanDiT2DModel knows no gradient checkpointing"):
        joined(tiny, "hunyuan-dit").checkpoint_activations()


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 16)])
def test_hidream_answers_in_training_as_ever(height: int, width: int, tiny: Tiny) -> None:
    bridge = joined(tiny, "hidream")
    text = bridge.encode(["a"])
    x = torch.randn(1, 8, height, width, generator=torch.Generator().manual_seed(0))
    answers = [
        bridge.vision.train(mode).predict(x, torch.tensor(500), text) for mode in (False, True)
    ]
    torch.testing.assert_close(*answers)


def test_hidream_refuses_what_its_places_do_not_hold(tiny: Tiny) -> None:
    vision = loaded(tiny("hidream"))
    assert vision.latent_shape(256, 256) == (8, 32, 32)
    with pytest.raises(BridgeError, match="draws 16384 pixels at most where sides differ"):
        vision.latent_shape(128, 256)


def test_guidance_may_be_an_input(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = joined(tiny, "flux-dev")
    calls = watched(bridge, monkeypatch)
    bridge.loss(torch.zeros(2, 3, 64, 64), ["a", "b"], generator=torch.Generator().manual_seed(0))
    assert calls[-1][2].guidance.tolist() == [1, 1]
    first = bridge.generate("a", steps=2, guidance=1.0)[0]
    second = bridge.generate("a", steps=2, guidance=6.0)[0]
    assert calls[-1][2].guidance.tolist() == [6]
    assert {len(call[0]) for call in calls[1:]} == {1}, "a null prompt was asked"
    assert first.tobytes() != second.tobytes()


def test_padding_that_is_zeroed_is_read_in_full(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = joined(tiny, "auraflow")
    calls = watched(bridge, monkeypatch)
    features = bridge.features(["a"], trim=True)
    assert features.hidden.shape[1] == bridge.tokens
    bridge.vision.predict(torch.zeros(1, 4, 8, 8), torch.tensor(500.0), bridge.adapt(features))
    read = calls[-1][2]
    assert read.mask is None
    assert features.mask is not None
    real = int(features.mask.sum())
    assert read.hidden[0, :real].any(-1).all()
    assert not read.hidden[0, real:].any()


def test_chroma_reads_one_token_of_padding(tiny: Tiny) -> None:
    vision = loaded(tiny("chroma"))
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    read = vision.reads(Text(torch.ones(2, 4, 24), mask))
    assert read.mask is not None
    assert read.mask.dtype == torch.bool
    assert read.mask.tolist() == [[True, True, True, False, False], [True] * 5]
    assert read.hidden[:, :, 0].tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]]
    bridge = joined(tiny, "chroma")
    with pytest.raises(BridgeError, match="does not mask text with gradient checkpointing"):
        bridge.checkpoint_activations()


def test_sizes_are_the_configs_or_the_familys(tiny: Tiny) -> None:
    assert loaded(tiny("z-image")).size == (64, 64)  # told by the pipeline
    assert loaded(tiny("sd3")).size == (64, 64)
    vision = loaded(tiny("qwen-image"))
    assert (vision.scale, vision.side_step, vision.latent_channels) == (8, 16, 4)


# ---- how a picture is drawn where nobody says how


@pytest.mark.parametrize(
    ("name", "steps", "guidance"),
    [
        ("sd", 50, 7.5),  # the paper's
        ("pixart-sigma", 50, 7.5),
        ("sdxl", 50, 5.0),  # from here on those of the own pipelines
        ("sd3", 28, 7.0),
        ("flux-dev", 28, 3.5),
        ("flux-schnell", 4, 1.0),
        ("qwen-image", 50, 4.0),
        ("z-image", 50, 6.0),  # 5 in its pipeline, where 0 is without guidance
    ],
)
def test_steps_and_guidance_are_the_familys_own(
    name: str, steps: int, guidance: float, tiny: Tiny
) -> None:
    vision = loaded(tiny(name))
    assert (vision.default_steps, vision.default_guidance) == (steps, guidance)


@pytest.mark.parametrize(("name", "guidance"), [("flux2-klein", 1.0), ("krea2", 5.5)])
def test_a_distilled_model_draws_as_its_pipeline_draws_it(
    name: str, guidance: float, tmp_path: Path, tiny: Tiny
) -> None:
    folder = make_vision(tmp_path / name, name)
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"is_distilled": True}))
    bridge = Bridge.connect(tiny("t5"), folder, rank=4, device="cpu")
    assert bridge.vision.default_guidance == guidance
    checks.make_loud(bridge)
    assert checks.off_pipeline(bridge, wide=True) <= 1


# ---- what is refused, and what a plan says


@pytest.mark.parametrize(
    ("name", "most"),
    [("sd3", 333), ("flux-dev", 512), ("lumina2", 299), ("hunyuan-dit", 64), ("hidream", 128)],
)
def test_more_tokens_than_a_family_can_read_are_refused(name: str, most: int, tiny: Tiny) -> None:
    with pytest.raises(BridgeError, match=f"reads {most} tokens at most, not 600"):
        Bridge.connect(tiny("t5"), tiny(name), rank=4, tokens=600)


def test_noise_levels_that_are_not_known_are_refused() -> None:
    with pytest.raises(BridgeError, match=r"EDM's noise levels .* are not known"):
        process({"_class_name": "EDMDPMSolverMultistepScheduler", "sigma_data": 0.5})


def test_a_sampler_that_does_not_know_the_shift_is_refused_in_a_line(tiny: Tiny) -> None:
    bridge = joined(tiny, "cogview4")
    with pytest.raises(BridgeError, match="try another scheduler"):
        bridge.generate("a", steps=2, scheduler="dpm++")


def test_an_adapter_without_a_pooled_vector_does_not_fit(tiny: Tiny) -> None:
    with_head, without = joined(tiny, "sd3"), joined(tiny, "auraflow")
    with pytest.raises(BridgeError, match=r"a pooled vector of width 0, but .* reads one of 20"):
        Parts(with_head.language, with_head.vision, without.adapter)


def test_an_adapter_without_further_sequences_does_not_fit(tiny: Tiny) -> None:
    two, one = joined(tiny, "hunyuan-dit"), joined(tiny, "auraflow")
    with pytest.raises(BridgeError, match=r"further sequences of widths \[\], but .* reads \[16\]"):
        Parts(two.language, two.vision, one.adapter)


@pytest.mark.parametrize("flag", ["use_karras_sigmas", "use_beta_sigmas"])
def test_what_flow_matchings_own_sampler_knows_is_told_to_it_alone(flag: str) -> None:
    flow = process({"_class_name": "FlowMatchEulerDiscreteScheduler", flag: True})
    assert flow.scheduler("flow-euler").config[flag]
    for name in ("unipc", "dpm++"):
        assert not flow.scheduler(name).config[flag]


@pytest.mark.parametrize("name", ["chroma", "qwen-image", "auraflow", "krea2", "hunyuan-dit"])
def test_padding_left_out_changes_nothing(name: str, tiny: Tiny) -> None:
    """A prompt whose tokens end where a batch is cut, and a longer batch."""
    bridge = joined(tiny, name)
    caption = "a" * (16 - len(bridge.language.tokenize([""], 8).ids[0].nonzero()))
    losses = [
        bridge.loss(
            torch.zeros(1, 3, 64, 64),
            [caption],
            generator=torch.Generator().manual_seed(0),
            trim=trim,
        )
        for trim in (True, False)
    ]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "sd3",
        "flux-dev",
        "flux2",
        "longcat",
        "krea2",
        "hunyuan-dit",
        "chroma",
        "lumina2",
        "z-image",
        "prx",
    ],
)
def test_it_draws_in_its_pipeline_in_bfloat16(name: str, tiny: Tiny) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny(name), rank=4, dtype="bfloat16", device="cpu")
    pipe = bridge.to_diffusers()
    pipe.set_progress_bar_config(disable=True)
    known = inspect.signature(pipe.__call__).parameters
    options = {"use_resolution_binning": False} if "use_resolution_binning" in known else {}
    drawn = pipe(
        **bridge.prompt_embeds("a red circle"),
        **bridge.vision.pipeline_guidance(3.0),
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        height=64,
        width=64,
        **options,
    ).images[0]
    assert drawn.size == bridge.generate("a red circle", steps=2, guidance=3.0)[0].size


@pytest.mark.parametrize(
    ("name", "counted"),
    [("lumina2", False), ("hidream", False), ("flux-dev", True), ("hunyuan-dit", True)],
)
def test_a_plan_says_what_it_cannot_count(name: str, counted: bool, tiny: Tiny) -> None:
    pair = str(tiny("t5")), str(tiny(name))
    plan = make_plan(*pair, language_rank=4, vision_rank=4, compute=False, checkpointing=False)
    assert plan.counted is counted
    assert (plan.sampling_tflop is not None) is counted
    assert ("not counted: the image model looks at values" in plan.table()) is not counted
    assert plan.trained > 0
