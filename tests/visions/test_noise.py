"""Noise processes: what a checkpoint's scheduler config says is trained and sampled alike."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.files.locate import locate
from lavi_bridge.visions import load_vision
from lavi_bridge.visions.noise.process import Diffusion, Flow, process

Tiny = Callable[[str], Path]

SD = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
ZERO_SNR = SD | {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
SAMPLERS = tuple(Diffusion.samplers)

pytestmark = pytest.mark.filterwarnings("ignore:`algorithm_types dpmsolver:FutureWarning")


def diffusion(**config: Any) -> Diffusion:
    made = process(SD | config)
    assert isinstance(made, Diffusion)
    return made


def with_noise(model: Path, folder: Path, **config: Any) -> Path:
    """A copy of an image model with another scheduler config."""
    vision = Path(shutil.copytree(model, folder))
    path = vision / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return vision


def velocity_of_a_gaussian(x: Tensor, signal: Tensor, *, mean: float, spread: float) -> Tensor:
    """What a perfect model of data from N(mean, spread²) answers; signal is ᾱ."""
    scale, sigma = signal.double().sqrt(), (1 - signal.double()).sqrt()
    gain = scale * spread**2 / (scale**2 * spread**2 + sigma**2)
    x0 = mean + gain * (x.double() - scale * mean)
    noise = (x.double() - scale * x0) / sigma
    return (scale * noise - sigma * x0).float()


def drawn(made: Diffusion, name: str, *, steps: int = 25) -> Tensor:
    """What a sampler makes of noise with that model: samples of N(1, 0.5²)."""
    scheduler = made.scheduler(name)
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(0)
    drawn = {"generator": generator} if name in ("ddpm", "euler-a") else {}
    x = torch.randn(1, 4, 32, 32, generator=generator) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        signal = made.forward.alphas_cumprod[int(t)]
        answer = velocity_of_a_gaussian(
            scheduler.scale_model_input(x, t), signal, mean=1.0, spread=0.5
        )
        x = scheduler.step(answer, t, x, **drawn).prev_sample
    return x


# ---- the levels of training reach every sampler


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    "config",
    [
        SD,
        ZERO_SNR,
        SD | {"beta_schedule": "sigmoid"},
        SD | {"beta_schedule": "laplace"},
        SD | {"beta_schedule": "squaredcos_cap_v2"},
        SD | {"trained_betas": [0.01] * 1000},
        {"num_train_timesteps": 500},  # the rest by default, and heun has others
    ],
    ids=["sd", "zero snr", "sigmoid", "laplace", "cosine", "trained betas", "defaults"],
)
def test_every_sampler_has_the_noise_levels_of_training(name: str, config: dict[str, Any]) -> None:
    made = process(config)
    assert isinstance(made, Diffusion)
    levels = made.scheduler(name).alphas_cumprod
    torch.testing.assert_close(levels, made.forward.alphas_cumprod, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["pndm", "heun"])
def test_zero_terminal_snr_keeps_2_to_the_minus_24_where_sigma_must_be_finite(name: str) -> None:
    made = process(ZERO_SNR)
    assert isinstance(made, Diffusion)
    assert made.forward.alphas_cumprod[-1] == 0
    assert made.scheduler(name).alphas_cumprod[-1].item() == pytest.approx(2**-24)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_draws_from_no_signal_at_all(name: str, spacing: str) -> None:
    made = process(ZERO_SNR | {"timestep_spacing": spacing})
    assert isinstance(made, Diffusion)
    x = drawn(made, name)
    assert x.mean().item() == pytest.approx(1.0, abs=0.06)
    assert x.std().item() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("name", ["pndm", "heun"])
def test_diffusers_pipeline_has_the_same_levels(tiny: Tiny, tmp_path: Path, name: str) -> None:
    vision = with_noise(tiny("sd2-v"), tmp_path / "v", rescale_betas_zero_snr=True)
    bridge = Bridge.connect(tiny("t5"), vision, rank=2)
    pipe = bridge.to_diffusers(name)
    assert pipe.scheduler.alphas_cumprod[-1].item() == pytest.approx(2**-24)
    pipe.set_progress_bar_config(disable=True)
    (theirs,) = pipe(
        **bridge.prompt_embeds(["a"]),
        num_inference_steps=3,
        guidance_scale=1.0,
        generator=[torch.Generator().manual_seed(0)],
    ).images
    (ours,) = bridge.generate("a", steps=3, guidance=1.0, scheduler=name)
    assert np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max() <= 1


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_published_schedule_is_left_to_the_class(name: str) -> None:
    """So that every digit of it stays diffusers' own."""
    assert diffusion().scheduler(name).config.get("trained_betas") is None


# ---- what cannot be sampled, or trained


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("variance", ["learned_range", "learned", "fixed_large", None])
def test_a_variance_that_the_model_answers_is_not_asked_for(
    name: str, variance: str | None
) -> None:
    made = process(ZERO_SNR | {"variance_type": variance})
    assert isinstance(made, Diffusion)
    assert drawn(made, name, steps=3).isfinite().all()


def test_other_samplers_serve_where_one_cannot_be_had() -> None:
    made = diffusion(algorithm_type="dpmsolver", final_sigmas_type="zero")
    with pytest.raises(BridgeError, match=r"scheduler 'dpm\+\+' cannot be had .*: unipc, ddim"):
        made.scheduler("dpm++")
    assert made.scheduler("unipc").alphas_cumprod.shape == (1000,)
    both = diffusion(use_karras_sigmas=True, use_exponential_sigmas=True)
    with pytest.raises(BridgeError, match="scheduler 'euler' cannot be had"):
        both.scheduler("euler")


def test_a_sampler_that_cannot_be_had_is_one_line_in_generate(tiny: Tiny, tmp_path: Path) -> None:
    vision = with_noise(
        tiny("sd"), tmp_path / "v", algorithm_type="dpmsolver", final_sigmas_type="zero"
    )
    bridge = Bridge.connect(tiny("t5"), vision, rank=2)
    with pytest.raises(BridgeError, match=r"scheduler 'dpm\+\+' cannot be had") as caught:
        bridge.generate("a", steps=1, scheduler="dpm++")
    assert "\n" not in str(caught.value)
    bridge.generate("a", steps=1)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"beta_schedule": "exp"}, "no training by this .*exp is not implemented"),
        ({"beta_start": None}, "no training by this scheduler_config.json .TypeError"),
        ({"trained_betas": [0.01] * 10}, "has 10 betas for 1000 timesteps"),
        ({"prediction_type": "sample"}, "prediction type 'sample' cannot be trained"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": "auto"}, "no training by"),
    ],
)
def test_noise_that_cannot_be_trained_is_one_line_that_names_the_model(
    tmp_path: Path, tiny: Tiny, config: dict[str, Any], reason: str
) -> None:
    vision = with_noise(tiny("sd"), tmp_path / "v", **config)
    for dtype in (None, torch.float32):  # in a plan, and in training
        with pytest.raises(BridgeError, match=f"'{vision}': .*{reason}") as caught:
            load_vision(locate(vision), dtype=dtype)
        assert "\n" not in str(caught.value)


def test_a_flow_model_is_left_as_it_was() -> None:
    made = process({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": None})
    assert isinstance(made, Flow)
    assert made.shift == 1.0
    assert all(made.scheduler(name) is not None for name in made.samplers)


# ---- min-SNR


def test_min_snr_weighs_a_level_without_signal_as_all_hard_ones() -> None:
    levels = torch.tensor([0, 500, 998, 999])
    weights = diffusion(rescale_betas_zero_snr=True).weights(levels, 5.0)
    assert weights is not None
    assert weights[1:].tolist() == [1.0, 1.0, 1.0]
    assert 0 < weights[0] < 0.01


def test_min_snr_of_a_velocity_is_zero_without_signal() -> None:
    weights = process(ZERO_SNR).weights(torch.tensor([500, 999]), 5.0)
    assert weights is not None
    assert weights[1] == 0
    assert 0 < weights[0] < 1


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_is_unchanged_where_there_is_signal(prediction: str) -> None:
    made, levels = diffusion(prediction_type=prediction), torch.arange(1000)
    signal = made.forward.alphas_cumprod
    snr = signal / (1 - signal)
    expected = snr.clamp(max=5.0) / (snr + (prediction == "v_prediction"))
    weights = made.weights(levels, 5.0)
    assert weights is not None
    assert torch.equal(weights, expected)


def test_a_loss_with_min_snr_at_the_last_level_is_a_number(tiny: Tiny, tmp_path: Path) -> None:
    vision = with_noise(tiny("sd"), tmp_path / "v", rescale_betas_zero_snr=True)
    bridge = Bridge.connect(tiny("t5"), vision, rank=2)
    latents, last = torch.zeros(1, 4, 8, 8), torch.tensor([999])
    loss = bridge.loss(latents=latents, captions=["a"], timesteps=last, min_snr=5.0)
    assert loss.isfinite()
