"""The bridge: the only place that knows both sides.

`c = f(y)` with LoRA in the language model f, `h(c)` the adapter, cross-attention of the vision
model g with LoRA in g (arXiv 2403.07860, section 3). Loss and sampling are neighbours here and
call the same `encode` and `vision.predict`, so that they cannot drift apart.
"""

from __future__ import annotations

import hashlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Generator, Tensor, nn

from lavi_bridge import lora
from lavi_bridge.adapters import ADAPTERS, Adapter
from lavi_bridge.config import LoRA, Match, Quantize, check_guidance
from lavi_bridge.device import choose_device, choose_dtype, to_device
from lavi_bridge.errors import BridgeError
from lavi_bridge.files import at_home, raw_bytes
from lavi_bridge.languages import Language, load_language
from lavi_bridge.locate import locate
from lavi_bridge.pictures import to_images
from lavi_bridge.progress import progress as bar
from lavi_bridge.text import Text
from lavi_bridge.visions import Vision, load_vision
from lavi_bridge.visions.process import Generators, gaussian, set_timesteps

if TYPE_CHECKING:
    from PIL.Image import Image

    from lavi_bridge.warm_start import Report


Side = Language | Vision
"""Either model of a bridge."""


@dataclass(frozen=True)
class Step:
    """One step of sampling, as `Bridge.sample` yields it."""

    index: int
    timestep: Tensor  # of one number, on the CPU
    latents: Tensor  # (batch, channels, height, width)


class Bridge(nn.Module):
    """A language model joined to a vision model.

    Both stay frozen; what trains is the adapter and the LoRA layers injected into either. As a
    module, its forward pass is the training loss, so that it can be wrapped for any number of
    devices as it is.
    """

    def __init__(self, language: Language, vision: Vision, adapter: Adapter) -> None:
        super().__init__()
        if (adapter.width_in, adapter.width_out) != (language.width, vision.text_width):
            raise BridgeError(
                f"the adapter maps {adapter.width_in} to {adapter.width_out}, but these models "
                f"need {language.width} to {vision.text_width}"
            )
        self.language = language
        self.vision = vision
        self.adapter = adapter
        self.training_summary: dict[str, Any] = {}
        self.eval()

    # ---- making one

    @classmethod
    def connect(
        cls,
        language: str | Path,
        vision: str | Path,
        *,
        adapter: str = "feedforward",
        rank: int = 32,
        language_rank: int | None = None,
        vision_rank: int | None = None,
        dropout: float = 0.1,
        dtype: str | torch.dtype | None = None,
        quantize: Quantize = "none",
        device: str | torch.device | None = None,
        seed: int = 0,
        trust_remote_code: bool = False,
    ) -> Self:
        """Join two pre-trained models by a fresh adapter and fresh LoRA.

        Args:
            language: Hub id (`owner/name[/subfolder][@revision]`), folder, or `zoo:NAME`.
            vision: the same, of a pipeline in diffusers' layout.
            adapter: name of a registered adapter.
            rank: LoRA rank on both models; `language_rank` and `vision_rank` set one alone, and
                0 leaves a model untouched.
            dropout: inside the adapter and on the output of every LoRA layer (paper: 0.1).
            dtype: precision of the frozen models: bfloat16 on a GPU, float32 elsewhere by default.
            quantize: hold the language model in 8 or 4 bits (`int8`, `nf4`) by bitsandbytes.
            device: where to put it all; a GPU by default, where there is one.
            seed: draws the adapter's and the LoRA layers' first weights.
            trust_remote_code: run code that comes with the language model.

        Raises:
            BridgeError: a model cannot be found or loaded, or LoRA does not fit it.
        """
        device = choose_device(device)
        precision = choose_dtype(dtype, device)
        return cls._assemble(
            load_language(locate(language), dtype=precision, quantize=quantize, device=device,
                          trust_remote_code=trust_remote_code),
            load_vision(locate(vision), dtype=precision),
            adapter=adapter,
            ranks=(
                rank if language_rank is None else language_rank,
                rank if vision_rank is None else vision_rank,
            ),
            dropout=dropout,
            seed=seed,
        ).to(device)  # fmt: skip

    @classmethod
    def outline(cls, language: str | Path, vision: str | Path, *, adapter: str = "feedforward",
                language_rank: int = 32, vision_rank: int = 32,
                trust_remote_code: bool = False) -> Self:  # fmt: skip
        """The same bridge without weights, on the meta device: only configs are read."""
        text_model = load_language(locate(language), trust_remote_code=trust_remote_code)
        parts = text_model, load_vision(locate(vision))
        with torch.device("meta"):
            return cls._assemble(
                *parts, adapter=adapter, ranks=(language_rank, vision_rank), dropout=0.0, seed=0
            )

    @classmethod
    def _assemble(cls, language: Language, vision: Vision, *, adapter: str,
                  ranks: tuple[int, int], dropout: float, seed: int) -> Self:  # fmt: skip
        if not 0 <= dropout < 1:
            raise BridgeError(f"dropout is a fraction below 1, not {dropout}")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            joined = ADAPTERS[adapter](language.width, vision.text_width, dropout=dropout)
            bridge = cls(language, vision, joined)
            sides: tuple[Side, Side] = (language, vision)
            for side, rank in zip(sides, ranks, strict=True):
                inject(side, LoRA(rank, side.lora_targets, dropout), seed=seed)
        return bridge

    @classmethod
    def own(cls, vision: str | Path, *, dtype: str | torch.dtype | None = None,
            device: str | torch.device | None = None) -> Self:  # fmt: skip
        """The vision model with the text encoder it came with: the baseline of comparisons.

        Raises:
            BridgeError: the folder has no text encoder of its own.
        """
        device = choose_device(device)
        precision = choose_dtype(dtype, device)
        image_model = load_vision(locate(vision), dtype=precision)
        language = own_encoder(image_model, dtype=precision)
        identity = ADAPTERS["identity"](language.width, image_model.text_width)
        return cls(language, image_model, identity).to(device)

    @classmethod
    def from_published(cls, folder: str | Path, *, language: str | Path, vision: str | Path,
                       dtype: str | torch.dtype | None = None,
                       device: str | torch.device | None = None,
                       trust_remote_code: bool = False) -> Self:  # fmt: skip
        """Read a checkpoint of the published code (`lora_vis.pt`, `lora_text.pt`, `adapter/`).

        Raises:
            BridgeError: a file is missing, or its layers, rank or shapes do not fit the models.
        """
        from lavi_bridge.legacy import load_published

        return load_published(
            cls, folder, language=language, vision=vision, dtype=dtype, device=device,
            trust_remote_code=trust_remote_code,
        )  # fmt: skip

    @classmethod
    def load(cls, folder: str | Path, *, language: str | Path | None = None,
             vision: str | Path | None = None, dtype: str | torch.dtype | None = None,
             device: str | torch.device | None = None,
             trust_remote_code: bool = False) -> Self:  # fmt: skip
        """Load a saved bridge from a folder or the Hub; it knows its own base models.

        Args:
            folder: what `save` wrote, or a Hub id.
            language, vision: where the base models are now, if they have moved.
            trust_remote_code: run code that comes with the language model; a bridge never says so
                by itself.

        Raises:
            BridgeError: a file is missing or damaged, or the base models are not the ones that
                the bridge was trained on.
        """
        from lavi_bridge.storage import load_bridge

        return load_bridge(
            cls, folder, language=language, vision=vision, dtype=dtype, device=device,
            trust_remote_code=trust_remote_code,
        )  # fmt: skip

    def save(self, folder: str | Path) -> None:
        """Write the trained parts and a model card into `folder`, atomically; safetensors only."""
        from lavi_bridge.storage import save_bridge

        save_bridge(self, at_home(folder))

    # ---- what trains

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """The trained parameters by part: adapter, language (LoRA), vision (LoRA)."""
        return {
            "adapter": list(self.adapter.parameters()),
            "language": lora.parameters(self.language.model),
            "vision": lora.parameters(self.vision.backbone),
        }

    def trainable_parameters(self) -> list[nn.Parameter]:
        """All trained parameters, ready for an optimizer."""
        return [parameter for part in self.parts().values() for parameter in part]

    def train(self, mode: bool = True) -> Self:
        """Set the training mode of all but what only ever serves: the autoencoder, and a language
        model without LoRA, whose features then are the same at every step."""
        super().train(mode)
        self.vision.vae.eval()
        self.language.train(mode and self.language.lora is not None)
        return self

    def checkpoint_activations(self) -> None:
        """Compute activations anew in the backward pass of both models instead of keeping them.

        About a third more time for a fraction of the memory; the gradients are the same. A language
        model that cannot (LDMBert, which is small) keeps its own.
        """
        model = self.language.model
        if getattr(model, "supports_gradient_checkpointing", False):
            # its name since transformers 5.23
            enable = getattr(model, "activation_checkpointing_enable", None)
            (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
        self.vision.backbone.enable_gradient_checkpointing()

    @property
    def id(self) -> str:
        """12 hex digits that identify base models and trained weights; they go into every PNG."""
        bases = self.language.fingerprint + self.vision.fingerprint
        digest = hashlib.sha256(bases.encode())
        for part in self.parts().values():
            for parameter in part:
                digest.update(raw_bytes(parameter))
        return digest.hexdigest()[:12]

    # ---- text

    @property
    def tokens(self) -> int:
        """Tokens per prompt: the vision model's length, or the language model's if shorter."""
        return min(self.vision.tokens, self.language.max_tokens or self.vision.tokens)

    def encode(self, prompts: str | Sequence[str]) -> Text:
        """Prompts -> features that the vision model can read, with its mask policy."""
        return self.adapt(self.features(prompts))

    def features(self, prompts: str | Sequence[str], *, trim: bool = False) -> Text:
        """Prompts -> the language model's hidden states (batch, tokens, width) and their mask.

        Args:
            trim: only as many tokens as the longest prompt has, rounded up to a multiple of 8,
                where padding is masked.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts:
            raise BridgeError("no prompts to encode")
        tokens = self.language.tokenize(prompts, self.tokens)
        if not self.vision.masks:
            return Text(self.language.hidden(tokens.ids))
        length = min(-(-tokens.longest // 8) * 8, self.tokens) if trim else self.tokens
        mask = tokens.mask[:, :length]
        hidden = self.language.hidden(tokens.ids[:, :length], mask)
        return Text(hidden, to_device(mask, hidden.device))

    def adapt(self, features: Text) -> Text:
        """The language model's features as the vision model reads them."""
        return Text(self.adapter(features.hidden), features.mask)

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
        generator: Generators = None,
        min_snr: float = 0.0,
        trim: bool = False,
        shares: Tensor | None = None,
    ) -> Tensor:
        """Mean squared error of the vision model's prediction, in float32.

        Args:
            pixels: (batch, 3, height, width) in [-1, 1]; or give `latents`, already encoded.
            captions: one a picture; or give `features` of the language model, before the adapter;
                or `text`, already encoded.
            noise, timesteps: drawn from `generator` where not given.
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
            text = self.adapt(features)
        noised = self.vision.noise(latents, timesteps, noise=noise, generator=generator)
        prediction = self.vision.predict(noised.x_t, noised.timesteps, text)
        weights = self.vision.process.weights(noised.timesteps, min_snr)
        if weights is None and shares is None:
            return nn.functional.mse_loss(prediction, noised.target.float())
        errors = (prediction - noised.target.float()).square().flatten(1).mean(1)
        for factor in (weights, shares):
            errors = errors if factor is None else factor * errors
        return errors.mean()

    def warm_start(
        self,
        captions: Sequence[str],
        *,
        match: Match = "states",
        steps: int = 800,
        batch_size: int = 32,
        lr: float = 3e-3,
        seed: int = 0,
        teacher: str | Path | None = None,
        folder: Path | None = None,
        progress: bool = False,
    ) -> Report:
        """Fit adapter and language LoRA to the vision model's own text encoder; no image is read.

        The rate rises over a twentieth of the steps and falls to zero over the last two fifths. The
        fall begins earlier, and the start ends earlier, where captions kept aside gain no more.

        Args:
            captions: what to learn from, some hundreds at least; the empty one is always added.
            match: `states` (the same hidden state for the same word; needs an own encoder whose
                states fit), `predictions` (the same noise predicted, on pictures that the vision
                model draws itself; any pair and any adapter), or `both`, one after the other.
            steps: at most.
            batch_size: captions a step; for predictions at most 32.
            lr: peak of Muon's rate, which is of the size of AdamW's.
            teacher: another text encoder that the vision model understands, for folders without
                their own: a Hub id or a folder.
            folder: gets the state once a minute; called again, a start that was stopped goes on.

        Raises:
            BridgeError: no caption has text, there is no own encoder, its states do not fit (match
                predictions then), or it was stopped.
        """
        from lavi_bridge.warm_start import run_warm_start

        return run_warm_start(
            self, captions, match=match, steps=steps, batch_size=batch_size, lr=lr, seed=seed,
            teacher=teacher, folder=folder, show=progress,
        )  # fmt: skip

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
    ) -> Iterator[Step]:
        """Denoise `latents` (batch, channels, height, width), standard normal; yield each step.

        Classifier-free guidance (arXiv 2207.12598) runs where `null` is given and `guidance` is
        not 1. The caller decides about progress, previews, gradients and decoding.

        Args:
            scheduler: a diffusers scheduler, or a name known to the vision model.
            generators: one per image, for samplers that draw noise on the way.
        """
        check_guidance(guidance)
        scheduler = (
            self.vision.process.scheduler(scheduler) if isinstance(scheduler, str) else scheduler
        )
        timesteps = set_timesteps(scheduler, steps, latents.device)
        latents = latents * getattr(scheduler, "init_noise_sigma", 1.0)
        guided = null is not None and guidance != 1
        if null is not None and guided:
            text = Text.cat([null.expand(len(text)) if len(null) == 1 else null, text])
        for index, t in enumerate(scheduler.timesteps):
            x_t = torch.cat([latents, latents]) if guided else latents
            if hasattr(scheduler, "scale_model_input"):
                x_t = scheduler.scale_model_input(x_t, t)
            prediction = self.vision.predict(x_t, timesteps[index], text)
            if guided:
                without, with_text = prediction.chunk(2)
                prediction = without + guidance * (with_text - without)
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
        steps: int = 50,
        guidance: float = 7.5,
        negative: str = "",
        height: int | None = None,
        width: int | None = None,
        scheduler: str | None = None,
        batch_size: int = 4,
        on_step: Callable[[Step], object] | None = None,
    ) -> Iterator[Image]:
        """Draw one picture a prompt and yield each as soon as its batch is done.

        Picture i starts from seed + i and a CPU generator, so that batch size, device and number
        of processes do not matter (beyond float rounding). The vision model's LoRA is fused
        into its weights meanwhile, where
        they are float32.

        Args:
            seed: of the first picture, or one for each.
            steps: denoising steps (paper: 50).
            guidance: weight of classifier-free guidance (paper: 7.5); 1 turns it off.
            negative: what to steer away from; the paper's null prompt is empty.
            height, width: in pixels; the vision model's own size by default.
            scheduler: name of a sampler (paper: unipc); the family's own by default.
            batch_size: pictures drawn at once.
            on_step: called after every step of every batch.

        Raises:
            BridgeError: bad size, scheduler, guidance or number of seeds.
            NotANumber: a picture's values are no numbers; its batch yields none.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        seeds = ([int(s) for s in seed] if isinstance(seed, Sequence)
                 else [int(seed) + i for i in range(len(prompts))])  # fmt: skip
        if len(seeds) != len(prompts):
            raise BridgeError(f"{len(prompts)} prompts, but {len(seeds)} seeds")
        if any(not 0 <= s < 2**63 for s in seeds):
            raise BridgeError("seeds must lie between 0 and 2^63")
        for option, value in (("steps", steps), ("batch_size", batch_size)):
            if value < 1:
                raise BridgeError(f"{option} must be at least 1, not {value}")
        check_guidance(guidance)
        own = self.vision.size
        shape = self.vision.latent_shape(height or own[0], width or own[1])
        name = scheduler or self.vision.default_scheduler
        self.warn_of_cut(prompts)
        self.warn_of_cut([negative])
        for start in range(0, len(prompts), batch_size):
            batch = slice(start, start + batch_size)
            generators = [Generator().manual_seed(s) for s in seeds[batch]]
            # everything is put back batch by batch: between two yields the caller may train
            with self._evaluating():
                text, null = self.encode(prompts[batch]), self.encode(negative)
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
                pixels = self.vision.decode(step.latents)
                images = to_images(pixels, prompts[batch], hint=self.overflow_hint())
            yield from images

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
        name = scheduler or self.vision.default_scheduler
        return self.vision.pipeline(self.vision.process.scheduler(name))

    @torch.no_grad()
    def prompt_embeds(self, prompts: str | Sequence[str], negative: str = "") -> dict[str, Any]:
        """Encoded prompts as arguments of diffusers' pipelines, masks included."""
        text, null = self.encode(prompts), self.encode(negative)
        return self.vision.pipeline_text(text, null.expand(len(text)))


def own_encoder(vision: Vision, *, dtype: torch.dtype) -> Language:
    """Load the text encoder that a vision model came with.

    Raises:
        BridgeError: its folder has none.
    """
    place = vision.place / vision.own_text_folder
    if place.file("config.json") is None:
        raise BridgeError(f"'{vision.place.id}' has no text encoder of its own")
    return load_language(place, dtype=dtype)


def inject(side: Side, spec: LoRA, *, seed: int = 0) -> int:
    """Inject LoRA into one side of a bridge and note it there; rank 0 does nothing."""
    if spec.rank == 0:
        return 0
    model = side.model if isinstance(side, Language) else side.backbone
    count = lora.inject(model, spec, seed=seed, name=f"'{side.place.id}'")
    side.lora = spec
    return count


def _draws(scheduler: Any) -> bool:
    return "generator" in inspect.signature(scheduler.step).parameters
