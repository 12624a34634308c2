"""Noise processes: how a vision model was trained to see noise, and how to sample it back.

Everything comes from the checkpoint's own scheduler config; nothing is assumed in a loop.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import diffusers
import torch
from diffusers.training_utils import compute_loss_weighting_for_sd3
from torch import Generator, Tensor

from lavi_bridge.config import FlowWeighting
from lavi_bridge.errors import BridgeError, first_line, in_a_line, nearest
from lavi_bridge.running.device import to_device

SHIFTS = (
    "use_dynamic_shifting",
    "time_shift_type",
    "base_shift",
    "max_shift",
    "base_image_seq_len",
    "max_image_seq_len",
    "shift_terminal",
)
"""What a flow model's scheduler config says of its times; all samplers that know it are told."""
FLOW_ONLY = (
    "invert_sigmas",
    "stochastic_sampling",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
)
"""What flow matching's own sampler alone is told: by these others make DDPM's noise levels."""

Generators = Generator | Sequence[Generator] | None
"""One source of randomness for a batch, or one for each sample; None is torch's global one."""


@dataclass(frozen=True)
class Noised:
    """Latents as the vision model sees them in training, and what it should answer."""

    x_t: Tensor  # (batch, channels, height, width)
    timesteps: Tensor  # (batch,)
    target: Tensor  # like x_t
    noise: Tensor  # like x_t

    def __iter__(self) -> Iterator[Tensor]:
        """Unpack as `x_t, timesteps, target`."""
        return iter((self.x_t, self.timesteps, self.target))


class Process:
    """A noise process with the samplers that can reverse it."""

    samplers: ClassVar[dict[str, tuple[str, dict[str, Any]]]]
    """Name -> diffusers class and settings on top of the checkpoint's own."""
    default: ClassVar[str] = "unipc"
    """The sampler that is taken where none is named."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def noise(
        self,
        x0: Tensor,
        timesteps: Tensor | None,
        noise: Tensor | None,
        generator: Generators,
        *,
        mu: float | None = None,
    ) -> Noised:
        """Draw what is not given and mix it into clean latents.

        Args:
            mu: the time shift of this size of picture, where it depends on that.
        """
        raise NotImplementedError

    def weights(self, timesteps: Tensor, min_snr: float = 0.0) -> Tensor | None:
        """Weights (batch,) of the noise levels in the loss; None where all weigh alike.

        Args:
            min_snr: γ of a cap on the easy levels' share; 0 for none.

        Raises:
            BridgeError: this process has no such weighting.
        """
        raise NotImplementedError

    def weigh_flow(self, weighting: FlowWeighting) -> None:
        """Choose how a flow-matching model's noise levels are drawn and weighted.

        Raises:
            BridgeError: this is another process.
        """
        if weighting != "logit-normal":
            raise BridgeError(
                f"flow_weighting {weighting} is for flow-matching models, and this is diffusion; "
                "its levels are drawn uniformly (min_snr weighs them)"
            )

    def scheduler(self, name: str) -> Any:
        """Build a sampler by name; an unknown one is a BridgeError that lists the known."""
        if name not in self.samplers:
            known = ", ".join(self.samplers)
            hint = nearest(name, self.samplers)
            raise BridgeError(f"no scheduler '{name}' for this vision model; known: {known}{hint}")
        try:
            return self._build(*self.samplers[name])
        except Exception as error:  # the library raises many types; all mean this
            others = ", ".join(other for other in self.samplers if other != name)
            raise BridgeError(
                f"scheduler '{name}' cannot be had with this vision model's scheduler_config.json "
                f"({in_a_line(error)}); try another: {others}"
            ) from error

    def _build(self, class_name: str, settings: dict[str, Any]) -> Any:
        """A diffusers scheduler with what it understands of the checkpoint's config."""
        kind = getattr(diffusers, class_name)
        accepted = inspect.signature(kind.__init__).parameters
        config = {k: v for k, v in self._sampling_config().items() if k in accepted}
        return kind.from_config(config | settings)

    def _sampling_config(self) -> dict[str, Any]:
        return {k: v for k, v in self.config.items() if not k.startswith("_")}


class Diffusion(Process):
    """Discrete-time diffusion (DDPM, arXiv 2006.11239), predicting noise or velocity."""

    samplers = {
        "unipc": ("UniPCMultistepScheduler", {}),  # the paper's
        "ddim": ("DDIMScheduler", {}),
        "ddpm": ("DDPMScheduler", {}),
        "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
        "dpm++": ("DPMSolverMultistepScheduler", {}),
        "euler": ("EulerDiscreteScheduler", {}),
        "euler-a": ("EulerAncestralDiscreteScheduler", {}),
        "heun": ("HeunDiscreteScheduler", {}),
    }

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.forward = super()._build("DDPMScheduler", {})
        self.levels = self.forward.alphas_cumprod.clone()
        """Shares of the signal on the CPU; the scheduler's own follow the latents to the device."""
        self.prediction = self.forward.config.prediction_type
        if self.prediction not in ("epsilon", "v_prediction"):
            raise BridgeError(
                f"prediction type '{self.prediction}' cannot be trained; "
                "known: epsilon, v_prediction"
            )
        levels, steps = len(self.forward.betas), self.forward.config.num_train_timesteps
        if levels != steps:
            raise BridgeError(f"scheduler_config.json has {levels} betas for {steps} timesteps")

    def noise(
        self,
        x0: Tensor,
        timesteps: Tensor | None,
        noise: Tensor | None,
        generator: Generators,
        *,
        mu: float | None = None,
    ) -> Noised:
        """Uniform timesteps; the target is the noise, or the velocity (arXiv 2202.00512)."""
        if timesteps is None:
            steps = self.forward.config.num_train_timesteps
            timesteps = to_device(_draw(torch.randint, len(x0), generator, 0, steps), x0.device)
        noise = gaussian(x0, generator) if noise is None else noise
        x_t = self.forward.add_noise(x0, noise, timesteps)
        velocity = self.prediction == "v_prediction"
        target = self.forward.get_velocity(x0, noise, timesteps) if velocity else noise
        return Noised(x_t, timesteps, target, noise)

    def weights(self, timesteps: Tensor, min_snr: float = 0.0) -> Tensor | None:
        """arXiv 2303.09556, section 3.4: min(SNR, γ) / SNR for noise, / (SNR + 1) for velocity."""
        if not min_snr:
            return None
        signal = self.forward.alphas_cumprod.to(timesteps.device)[timesteps]
        snr = signal / (1 - signal)
        if self.prediction == "v_prediction":
            return snr.clamp(max=min_snr) / (snr + 1)
        snr = snr.clamp(min=torch.finfo(snr.dtype).tiny)  # 1 without signal, as at any below γ
        return snr.clamp(max=min_snr) / snr

    def _sampling_config(self) -> dict[str, Any]:
        # latents are not bounded, so nothing is clipped; diffusers' pipelines insist on both
        config = super()._sampling_config() | {"clip_sample": False, "steps_offset": 1}
        if str(config.get("variance_type")).startswith("learned"):
            config["variance_type"] = "fixed_small"  # the model's variance is dropped in `predict`
        return config

    def _build(self, class_name: str, settings: dict[str, Any]) -> Any:
        """A scheduler with the noise levels of training.

        Training's betas are handed over where the class makes others of the config: it does not
        know a schedule, a setting such as zero terminal SNR, or has other defaults.
        """
        with suppress(NotImplementedError):  # a schedule of betas that only training knows
            own = super()._build(class_name, settings)
            if _same_levels(own.alphas_cumprod, self.levels):
                return own
        return super()._build(class_name, settings | {"trained_betas": self._finite_betas()})

    def _finite_betas(self) -> list[float]:
        """Training's betas; where the last leaves no signal, 2⁻²⁴ of it, as diffusers does.

        Without any, σ of the samplers that get them would be infinite.
        """
        betas = self.forward.betas.double()
        if self.levels[-1] == 0:
            betas[-1] = 1 - 2**-24 / (1 - betas[:-1]).prod()
        return betas.tolist()


class Flow(Process):
    """Flow matching on straight paths (arXiv 2210.02747), with the checkpoint's time shift."""

    samplers = {
        "flow-euler": ("FlowMatchEulerDiscreteScheduler", {}),
        "unipc": ("UniPCMultistepScheduler", {}),
        "dpm++": ("DPMSolverMultistepScheduler", {}),
    }
    default = "flow-euler"

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.shift = float(config.get("flow_shift") or config.get("shift") or 1.0)
        self.steps = int(config.get("num_train_timesteps", 1000))
        self.weighting: FlowWeighting = "logit-normal"

    @property
    def dynamic(self) -> bool:
        """Whether the time shift depends on the size of the picture (arXiv 2403.03206, 5.3.2)."""
        return bool(self.config.get("use_dynamic_shifting"))

    def shift_of(self, mu: float | None) -> float:
        """The shift s of times t -> s t / (1 + (s - 1) t): e^mu, or mu where it is linear."""
        if mu is None or not self.dynamic:
            return self.shift
        return mu if self.config.get("time_shift_type") == "linear" else math.exp(mu)

    def noise(
        self,
        x0: Tensor,
        timesteps: Tensor | None,
        noise: Tensor | None,
        generator: Generators,
        *,
        mu: float | None = None,
    ) -> Noised:
        """Times drawn as the weighting says, and shifted; the target is noise - x0."""
        if timesteps is None:
            u = to_device(self._times(len(x0), generator), x0.device)
            shift = self.shift_of(mu)
            timesteps = shift * u / (1 + (shift - 1) * u) * self.steps
        noise = gaussian(x0, generator) if noise is None else noise
        sigma = (timesteps / self.steps).to(x0).view(-1, *[1] * (x0.ndim - 1))
        return Noised((1 - sigma) * x0 + sigma * noise, timesteps, noise - x0, noise)

    def _times(self, batch: int, generator: Generators) -> Tensor:
        """Times (batch,) in [0, 1] before the shift: arXiv 2403.03206, section 3.1."""
        if self.weighting == "logit-normal":
            return torch.sigmoid(_draw(torch.randn, batch, generator))
        u = _draw(torch.rand, batch, generator)
        if self.weighting == "mode":  # equation 20, with the paper's best scale
            return 1 - u - 1.29 * (torch.cos(torch.pi / 2 * u) ** 2 - 1 + u)
        return u

    def weights(self, timesteps: Tensor, min_snr: float = 0.0) -> Tensor | None:
        """As diffusers weighs Stable Diffusion 3: `cosmap` (equation 21) or 1/σ²."""
        if min_snr:
            raise BridgeError("min_snr is for diffusion models; for flow matching: flow_weighting")
        if self.weighting not in ("cosmap", "sigma-sqrt"):
            return None
        scheme = self.weighting.replace("-", "_")
        # diffusers' levels are discrete, the least 1 / steps; below it 1/σ² has no end
        sigmas = (timesteps / self.steps).clamp(min=1 / self.steps)
        return compute_loss_weighting_for_sd3(scheme, sigmas)

    def weigh_flow(self, weighting: FlowWeighting) -> None:
        self.weighting = weighting

    def _build(self, class_name: str, settings: dict[str, Any]) -> Any:
        if class_name.startswith("FlowMatch"):
            settings = {k: self.config[k] for k in FLOW_ONLY if k in self.config} | settings
        return super()._build(class_name, settings)

    def _sampling_config(self) -> dict[str, Any]:
        own = super()._sampling_config()
        shared = {key: own[key] for key in SHIFTS if own.get(key) is not None}
        shared |= {"num_train_timesteps": self.steps, "shift": self.shift, "flow_shift": self.shift}
        return shared | {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


def gaussian(like: Tensor, generator: Generators) -> Tensor:
    """Standard normal noise; from CPU generators it is the same on every device.

    Those draw on the CPU, each sample into its place in one tensor: pinned, where a GPU gets it.
    """
    generators = list(generator) if isinstance(generator, Sequence) else [generator]
    if any(g is None or g.device.type != "cpu" for g in generators):
        from diffusers.utils.torch_utils import randn_tensor

        given = generators if isinstance(generator, Sequence) else generator
        return randn_tensor(like.shape, generator=given, device=like.device, dtype=like.dtype)
    noise = torch.empty(like.shape, dtype=like.dtype, pin_memory=like.device.type == "cuda")
    samples = noise.split(1) if len(generators) > 1 else [noise]
    for sample, own in zip(samples, generators, strict=True):
        torch.randn(sample.shape, generator=own, out=sample)
    return to_device(noise, like.device)


def process(config: dict[str, Any]) -> Process:
    """The noise process that a pipeline's scheduler config describes.

    Raises:
        BridgeError: it cannot be trained.
    """
    name = str(config.get("_class_name", ""))
    if name.startswith("EDM") or "sigma_data" in config:
        raise BridgeError(f"{name or 'EDM'}: EDM's noise levels (arXiv 2206.00364) are not known")
    flow = name.startswith("FlowMatch")
    flow = flow or config.get("prediction_type") == "flow_prediction"
    try:
        return Flow(config) if flow else Diffusion(config)
    except BridgeError:
        raise
    except Exception as error:  # the library raises many types; all mean this
        raise BridgeError(
            f"no training by this scheduler_config.json ({in_a_line(error)})"
        ) from error


def set_timesteps(scheduler: Any, steps: int, device: torch.device, **options: Any) -> Tensor:
    """Let a sampler begin; return its timesteps (steps,) on the vision model's device.

    `options` are the sampler's own, such as `mu` and `sigmas`.

    Its own stay on the CPU: it looks at them, and would wait for a GPU to tell.

    Raises:
        BridgeError: it cannot make so many steps.
    """
    try:
        scheduler.set_timesteps(steps, **options)
    except (ValueError, AssertionError) as error:
        reason = first_line(error) or f"{type(scheduler).__name__} cannot be used with this model"
        raise BridgeError(f"{steps} steps: {reason}; try another scheduler") from error
    if isinstance(scheduler, diffusers.UniPCMultistepScheduler):  # computes with them, one by one
        scheduler.sigmas = to_device(scheduler.sigmas, device)
    return to_device(scheduler.timesteps, device)


def _same_levels(a: Tensor, b: Tensor) -> bool:
    """Whether shares of the signal are the same, give or take the 2⁻²⁴ that keeps σ finite."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=1e-6)


def _draw(kind: Any, batch: int, generator: Generators, *bounds: int) -> Tensor:
    """`batch` numbers on the CPU, from one generator or one each."""
    if isinstance(generator, Sequence):
        return torch.cat([kind(*bounds, (1,), generator=g) for g in generator])
    device = generator.device if generator is not None else None
    return kind(*bounds, (batch,), generator=generator, device=device)
