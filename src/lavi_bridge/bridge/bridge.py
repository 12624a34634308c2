"""The bridge: the only place that knows both sides.

`c = f(y)` with LoRA in the language model f, `h(c)` the adapter, cross-attention of the vision
model g with LoRA in g (arXiv 2403.07860, section 3). Loss and sampling are neighbours here and
call the same `encode` and `vision.predict`, so that they cannot drift apart.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn

from lavi_bridge.bridge import lora
from lavi_bridge.bridge.made import Made
from lavi_bridge.bridge.own import OwnEncoders
from lavi_bridge.config import check_finite, check_guidance
from lavi_bridge.errors import BridgeError
from lavi_bridge.running.device import to_device, visiting
from lavi_bridge.running.progress import progress as bar
from lavi_bridge.show.pictures import to_images
from lavi_bridge.text import Text
from lavi_bridge.visions.noise.process import Generators, gaussian

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Step:
    """One step of sampling, as `Bridge.sample` yields it."""

    index: int
    timestep: Tensor
    """Of one number, on the CPU."""
    latents: Tensor
    """(batch, channels, height, width)"""


class Bridge(Made):
    """A language model joined to a vision model.

    Both stay frozen; what trains is the adapter and the LoRA layers injected into either. As a
    module, its forward pass is the training loss, so that it can be wrapped for any number of
    devices as it is.
    """

    # ---- training

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.loss(*args, **kwargs)

    def loss(
        self,
        pixels: Tensor | None = None,
        captions: Sequence[str] | None = None,
        *,
        latents: Tensor | None = None,
        text: Text | None = None,
        features: Text | None = None,
        noise: Tensor | None = None,
        timesteps: Tensor | None = None,
        framing: Tensor | None = None,
        generator: Generators = None,
        min_snr: float = 0.0,
        trim: bool | None = None,
        shares: Tensor | None = None,
    ) -> Tensor:
        """Mean squared error of the vision model's prediction, in float32.

        Args:
            pixels: (batch, 3, height, width) in [-1, 1]; or give `latents`, already encoded.
            captions: one a picture; or give `features` of the language model, before the adapter;
                or `text`, already encoded.
            noise, timesteps: drawn from `generator` where not given.
            framing: (batch, 4) original height and width of each picture, and top and left of its
                crop in the resized one; by default all are whole. SDXL and Kolors are told.
            generator: one source of randomness, or one for each picture.
            min_snr: γ of the min-SNR weighting of noise levels (arXiv 2303.09556; 5 is usual); 0
                weighs all alike, as published.
            trim: leave out padding that no caption of the batch needs, where it is masked: the same
                loss for less work.
            shares: (batch,) what each picture counts; by default 1.

        Raises:
            BridgeError: neither pictures nor latents, or a number of captions that does not fit.
        """
        if latents is None:
            if pixels is None:
                raise BridgeError("loss needs pixels or latents")
            latents = self.vision.encode(pixels, generator)
        if text is None and features is None:
            if captions is None:
                raise BridgeError("loss needs captions or text")
            if isinstance(captions, str) or len(captions) != len(latents):
                raise BridgeError(f"{len(latents)} pictures need a list of as many captions")
            features = self.features(captions, trim=trim)
        if text is None:
            assert features is not None
            text = self.adapt(self.beside_own(features, captions))
        text = text if framing is None else replace(text, framing=framing)
        noised = self.vision.noise(latents, timesteps, noise=noise, generator=generator)
        prediction = self.predict(noised.x_t, noised.timesteps, text)
        weights = self.vision.process.weights(noised.timesteps, min_snr)
        if weights is None and shares is None:
            return nn.functional.mse_loss(prediction, noised.target.float())
        errors = (prediction - noised.target.float()).square().flatten(1).mean(1)
        for factor in (weights, shares):
            errors = errors if factor is None else factor * errors
        return errors.mean()

    def predict(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        """Noised latents (B, c, h, w), timesteps (B,), text of this bridge -> the answer, like x_t.

        What loss, sampling, validation, warm start and plan ask for.
        """
        if self.adapter.timed:
            timesteps = to_device(timesteps, x_t.device).expand(len(x_t))
            text = self.adapter.at(text, timesteps)
        return self.vision.predict(x_t, timesteps, text)

    # ---- sampling

    def sample(
        self,
        text: Text,
        null: Text | None = None,
        *,
        latents: Tensor,
        scheduler: Any,
        steps: int = 50,
        guidance: float = 7.5,
        generators: Sequence[Generator] | None = None,
        predict: Callable[[Tensor, Tensor, Text], Tensor] | None = None,
    ) -> Iterator[Step]:
        """Denoise `latents` (batch, channels, height, width), standard normal; yield each step.

        Classifier-free guidance (arXiv 2207.12598) runs where `null` is given and `guidance` is
        not 1, in the family's own way; a model that guidance is an input of is told it, and no
        null prompt is asked. The caller decides about progress, previews, gradients and decoding.

        Args:
            scheduler: a diffusers scheduler, or a name known to the vision model.
            generators: one per image, for samplers that draw noise on the way.
            predict: what answers; the vision model's own for text that is not of this bridge.
        """
        check_guidance(guidance)
        scheduler = (
            self.vision.process.scheduler(scheduler) if isinstance(scheduler, str) else scheduler
        )
        if steps == 1 and getattr(scheduler, "config", {}).get("shift_terminal"):
            raise BridgeError("this sampler ends at a noise level of its own: take 2 steps or more")
        timesteps = self.vision.start(scheduler, steps, latents)
        latents = latents * getattr(scheduler, "init_noise_sigma", 1.0)
        guided = null is not None and guidance != 1 and not self.vision.distilled
        if self.vision.distilled:
            scale = torch.full((len(text),), float(guidance), device=text.hidden.device)
            text = replace(text, guidance=scale)
        asked = [text]
        if null is not None and guided:
            asked = [null.expand(len(text)) if len(null) == 1 else null, text]
        if len({one.hidden.shape for one in asked}) == 1:  # at once; others keep their lengths
            asked = [Text.cat(asked)]
        answer = predict or self.predict
        for index, t in enumerate(scheduler.timesteps):
            x_t = latents
            if hasattr(scheduler, "scale_model_input"):
                x_t = scheduler.scale_model_input(x_t, t)
            times = timesteps[index]
            answers = [
                answer(x_t.repeat(len(one) // len(x_t), 1, 1, 1), times, one) for one in asked
            ]
            prediction = torch.cat(answers)
            if guided:
                without, with_text = prediction.chunk(2)
                prediction = self.vision.guide(without, with_text, guidance)
            drawn = {"generator": list(generators)} if generators and _draws(scheduler) else {}
            latents = scheduler.step(prediction, t, latents, **drawn).prev_sample
            yield Step(index, t, latents)

    @torch.no_grad()
    def generate(
        self, prompts: str | Sequence[str], *, progress: bool = False, **options: Any
    ) -> list[Image]:
        """Draw one picture a prompt; see `stream` for the options (seed, steps, guidance, …)."""
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not progress:
            return list(self.stream(prompts, **options))
        with bar(desc="sampling") as steps:
            return list(self.stream(prompts, on_step=lambda _: steps.update(), **options))

    @torch.no_grad()
    def stream(
        self,
        prompts: str | Sequence[str],
        *,
        seed: int | Sequence[int] = 0,
        steps: int | None = None,
        guidance: float | None = None,
        negative: str = "",
        height: int | None = None,
        width: int | None = None,
        scheduler: str | None = None,
        language_scale: float = 1.0,
        vision_scale: float = 1.0,
        adapter_scale: float = 1.0,
        batch_size: int = 4,
        on_step: Callable[[Step], object] | None = None,
    ) -> Iterator[Image]:
        """Draw one picture a prompt and yield each as soon as its batch is done.

        Picture i starts from seed + i and a CPU generator, so that batch size, device and number
        of processes do not matter (beyond float rounding). The vision model's LoRA is fused
        into its weights meanwhile, where they are float32.

        Args:
            seed: of the first picture, or one for each.
            steps: denoising steps; the family's own by default (the paper's models: 50).
            guidance: weight of classifier-free guidance, 1 turns it off; the family's own by
                default (the paper's models: 7.5).
            negative: what to steer away from; the paper's null prompt is empty.
            height, width: in pixels; the vision model's own size by default.
            scheduler: name of a sampler (paper: unipc); the family's own by default.
            language_scale, vision_scale, adapter_scale: strengths; see `scaled`.
            batch_size: pictures drawn at once.
            on_step: called after every step of every batch.

        Raises:
            BridgeError: bad size, scheduler, guidance, strength or number of seeds.
            NotANumber: a picture's values are no numbers; its batch yields none.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        seeds = (
            [int(s) for s in seed]
            if isinstance(seed, Sequence)
            else [int(seed) + i for i in range(len(prompts))]
        )
        if len(seeds) != len(prompts):
            raise BridgeError(f"{len(prompts)} prompts, but {len(seeds)} seeds")
        if any(not 0 <= s < 2**63 for s in seeds):
            raise BridgeError("seeds must lie between 0 and 2^63")
        steps = self.vision.default_steps if steps is None else steps
        guidance = self.vision.default_guidance if guidance is None else guidance
        for option, value in (("steps", steps), ("batch_size", batch_size)):
            if value < 1:
                raise BridgeError(f"{option} must be at least 1, not {value}")
        check_guidance(guidance)
        size = self.vision.size
        shape = self.vision.latent_shape(height or size[0], width or size[1])
        name = scheduler or self.vision.default_scheduler
        self.warn_of_cut(prompts)
        self.warn_of_cut([negative])
        own = isinstance(self.language, OwnEncoders) or self.own_encoders is not None
        if own and self.vision.own_alone:
            batch_size = 1
        scales = {"language": language_scale, "vision": vision_scale, "adapter": adapter_scale}
        for start in range(0, len(prompts), batch_size):
            batch = slice(start, start + batch_size)
            generators = [Generator().manual_seed(s) for s in seeds[batch]]
            # everything is put back batch by batch: between two yields the caller may train
            with self._evaluating(), self.scaled(**scales):
                with visiting(self.readers, self._away):
                    text, null = self.encode(prompts[batch]), self.encode(negative)
                with visiting(self.answerers, self._away):
                    latents = gaussian(
                        torch.empty(len(text), *shape, device=self.vision.device), generators
                    )
                    with lora.fused(self.vision.backbone):
                        for step in self.sample(
                            text,
                            null,
                            latents=latents,
                            scheduler=name,
                            steps=steps,
                            guidance=guidance,
                            generators=generators,
                        ):
                            if on_step:
                                on_step(step)
                with visiting([self.vision.vae], self._away):
                    pixels = self.vision.decode(step.latents)
                images = to_images(pixels, prompts[batch], hint=self.overflow_hint())
            yield from images

    @contextmanager
    def scaled(
        self, *, language: float = 1.0, vision: float = 1.0, adapter: float = 1.0
    ) -> Iterator[None]:
        """Multiply what the LoRA of either model adds, and the adapter to the own encoder's states.

        0 is the frozen model and 1 as trained; in between, and beyond, weights are W + scale · BA.

        Raises:
            BridgeError: a number is not finite, or other than 1 for a model without LoRA or an
                adapter that adds nothing.
        """
        with ExitStack() as stack:
            for side, name, scale in (
                (self.language, "language", language),
                (self.vision, "vision", vision),
            ):
                check_finite(f"{name}_scale", scale)
                if scale != 1 and side.lora is None:
                    raise BridgeError(
                        f"{name}_scale cannot be {scale:g}: there is no LoRA in the {name} model "
                        f"'{side.place.id}'"
                    )
                stack.enter_context(lora.scaled(side.trunk, scale))
            check_finite("adapter_scale", adapter)
            stack.enter_context(self.adapter.scaled(adapter))
            yield

    def overflow_hint(self) -> str:
        """What to do where pictures are not numbers."""
        models = (self.language.dtype, self.vision.dtype, self.vision.vae.dtype)
        if all(dtype == torch.float32 for dtype in models):
            return "its bridge or models have damaged weights, or the guidance is far too high"
        return "use --dtype float32"

    def warn_of_cut(self, prompts: Sequence[str]) -> None:
        """Warn once, with the count, if prompts are longer than the token limit."""
        tokens = self.language.tokenize(prompts, self.tokens) if prompts else None
        if tokens is not None and tokens.cut:
            warnings.warn(
                f"{tokens.cut} of {len(prompts)} prompts are longer than {self.tokens} tokens "
                f"(the longest has {tokens.longest}); their ends are not read",
                stacklevel=3,
            )

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        was_training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(was_training)

    # ---- diffusers

    def to_diffusers(self, scheduler: str | None = None) -> Any:
        """diffusers' own pipeline around this vision model, fed by `prompt_embeds`.

        In float32 the same seed draws the same picture as `generate`:

            pipe = bridge.to_diffusers("ddim")
            generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
            pipe(**bridge.prompt_embeds(prompts), generator=generators, num_inference_steps=50,
                 guidance_scale=7.5, height=side, width=side)

        with `side = bridge.vision.resolution`; PixArt's and Sana's pipelines also need
        `use_resolution_binning=False`, or they change the size.
        """
        self._refuse_timed()
        name = scheduler or self.vision.default_scheduler
        pipeline = self.vision.pipeline(self.vision.process.scheduler(name))
        hooks = self.vision.backbone._forward_pre_hooks.values()
        if self.tokens > self.padding and not self.vision.masks and _mask_zeros not in hooks:
            self.vision.backbone.register_forward_pre_hook(_mask_zeros, with_kwargs=True)
        return pipeline

    @torch.no_grad()
    def prompt_embeds(self, prompts: str | Sequence[str], negative: str = "") -> dict[str, Any]:
        """Encoded prompts as arguments of diffusers' pipelines, masks included."""
        self._refuse_timed()
        text, null = self.encode(prompts), self.encode(negative)
        null = null.expand(len(text))
        if not self.vision.masks:  # those pipelines take no mask: what is masked is zero
            both = Text.cat([text, null])
            hidden = both.hidden if both.mask is None else both.hidden * both.mask.unsqueeze(-1)
            told, empty = hidden.split(len(text))
            text = replace(text, hidden=told, mask=None)
            null = replace(null, hidden=empty, mask=None)
        dtype = self.vision.dtype  # not all pipelines cast what they are given
        return self.vision.pipeline_text(text.to(dtype=dtype), null.to(dtype=dtype))

    def _refuse_timed(self) -> None:
        if self.adapter.timed:
            raise BridgeError(
                f"the '{self.adapter.kind}' adapter reads a prompt anew at every step: diffusers' "
                "pipelines take embeddings that stay; draw with `generate`"
            )


def _mask_zeros(_backbone: nn.Module, args: Any, options: dict[str, Any]) -> Any:
    """Mask tokens that are all zero, in a call that brings no mask of its own."""
    hidden = options.get("encoder_hidden_states")
    if hidden is not None and options.get("encoder_attention_mask") is None:
        options = options | {"encoder_attention_mask": (hidden != 0).any(-1)}
    return args, options


def _draws(scheduler: Any) -> bool:
    return "generator" in inspect.signature(scheduler.step).parameters
