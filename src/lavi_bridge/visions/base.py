"""What every vision model can do: noise, predict, and read text; and its images.

A family says only how it differs: the folders of its pipeline, where the text width is in the
config, how many tokens it reads, whether it honours a mask, where LoRA goes, and how it is
called.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from lavi_bridge.config import LoRA, Quantize
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.locate import Place
from lavi_bridge.files.weights import Fingerprint, joined
from lavi_bridge.registry import Registry
from lavi_bridge.running.device import to_device
from lavi_bridge.running.quantize import quantize_blocks
from lavi_bridge.text import Text
from lavi_bridge.visions import autoencoder, stock
from lavi_bridge.visions.components import load_part, part_fingerprint
from lavi_bridge.visions.images import Images
from lavi_bridge.visions.noise.process import (
    Flow,
    Generators,
    Noised,
    Process,
    process,
    set_timesteps,
)
from lavi_bridge.visions.single.single import opened

Padding = Literal["read", "masked", "zeroed"]
Fields = tuple[str, ...] | None
Comfy = Literal["unet", "pixart"] | None
VISIONS: Registry[Vision] = Registry("vision class")


class Vision(Images):
    """A frozen latent image model: backbone, autoencoder and noise process."""

    backbone_class: ClassVar[str]
    """Name of the class in diffusers."""
    own_text_folder: ClassVar[str] = "text_encoder"
    """Where the pipeline keeps the text encoder that it was trained with."""
    own_fields: ClassVar[Fields] = ()
    """What its pipeline's `encode_prompt` answers, in order: hidden, mask, pooled, and the same
    with null_; empty where it was trained on that one encoder's last states as they are, None where
    one call does not give all that it reads."""
    own_tokenizer: ClassVar[str | None] = None
    """The tokenizer that those states are one a token of; None where there is none."""
    own_alone: ClassVar[bool] = False
    """Whether what is read of a prompt depends on those that it is encoded with."""
    text_config: ClassVar[str] = "caption_channels"
    """Key of the backbone's config that holds the width of its text features."""
    other_inputs: ClassVar[tuple[str, ...]] = ()
    """Keys of the backbone's config that, where set, ask for inputs that a bridge does not have."""
    default_tokens: ClassVar[int]
    """How many tokens the model was trained to read."""
    max_tokens: ClassVar[int | None] = None
    """How many it can read; None where cross-attention reads any number."""
    padding: ClassVar[Padding]
    """`read`: no mask anywhere; `masked`: in the backbone and in the language model; `zeroed`:
    masked in the language model, zeros without a mask in the backbone."""
    pooled_config: ClassVar[str | None] = None
    """Key of the backbone's config that holds the width of a pooled text vector."""
    even_sigmas: ClassVar[bool] = False
    """Whether the family's pipeline samples at sigmas evenly from 1 to 1/steps, then shifted."""
    framed: ClassVar[bool] = False
    """Whether it is told each picture's original size and crop (`Text.framing`), in training."""
    lora_targets: ClassVar[str]
    """Regular expression for the layers that get LoRA."""
    paper_sampling: ClassVar[tuple[int, float] | None] = None
    """Steps and guidance of the paper; None where those of the family's pipeline are taken."""
    pipeline_class: ClassVar[str]
    """diffusers' pipeline that takes prompt embeddings for this model."""
    pipeline_options: ClassVar[dict[str, Any]] = {}
    stock_text: ClassVar[dict[str, Any] | None] = None
    """Arguments with which that pipeline hands on one text encoder's last states as they are; None
    where it does otherwise."""
    modular_class: ClassVar[str | None] = None
    """diffusers' class of the family's modular pipeline, where there is one and it was tried."""
    comfyui_names: ClassVar[Comfy] = None
    """How ComfyUI names the backbone's layers; None for models that our nodes do not know."""

    def __init__(self, backbone: nn.Module, vae: nn.Module, process: Process, place: Place) -> None:
        super().__init__(backbone, vae, place)
        self.process = process
        self._check_inputs()
        self.tokens = self._tokens()
        self.lora: LoRA | None = None

    @property
    def trunk(self) -> Any:
        """The frozen network that LoRA goes into."""
        return self.backbone

    @classmethod
    def load(
        cls,
        place: Place,
        *,
        dtype: torch.dtype | None,
        quantize: Quantize = "none",
        device: torch.device | None = None,
    ) -> Self:
        """Load the parts of a pipeline folder; without a dtype only their shapes (meta device).

        Part by part, because pipelines refuse folders whose text encoder is null. Where the
        backbone is quantised, its layers are made on `device` one by one.
        """
        backbone = load_part(place / cls.backbone_folder, cls.backbone_class, dtype)
        vae = load_part(place / cls.vae_folder, None, dtype)
        config = (place / "scheduler").json("scheduler_config.json")
        try:
            noising = process(config)
        except BridgeError as error:
            raise BridgeError(f"'{place.id}': {error}") from error
        vision = cls(backbone, vae, noising, place)
        if quantize != "none" and dtype is not None:
            where = device or torch.device("cpu")
            quantize_blocks(backbone, vision.lora_targets, quantize, dtype=dtype, device=where)
        return vision

    def _check_inputs(self) -> None:
        """Refuse a backbone that takes anything but an image's latents and a text.

        Raises:
            BridgeError: it is for inpainting, editing, depth or enlarging, say.
        """
        config = self.vae.config
        given = config.get("vq_embed_dim") or config.get("latent_channels")
        given = given and given * autoencoder.square_of(self.vae) ** 2
        taken, answered = self.latent_channels, self.backbone.config.get("out_channels")
        if given is not None and (taken != given or (answered or taken) < given):
            raise BridgeError(
                f"'{self.place.id}' is no text-to-image model: its {self.backbone_folder} takes "
                f"{taken} channels and answers {answered or taken}, the autoencoder gives {given}"
            )
        for key in self.other_inputs:
            if (value := self.backbone.config.get(key)) is not None:
                raise BridgeError(
                    f"'{self.place.id}' asks for more than a bridge gives, an image's latents and "
                    f"a text: the config of its {self.backbone_folder} has {key} {value!r}"
                )

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """16 hex digits that identify the frozen weights; see `weights.fingerprint`."""
        folders = self.backbone_folder, self.vae_folder
        found: list[str] = [part_fingerprint(self.place / folder) for folder in folders]
        noising = {k: v for k, v in self.process.config.items() if not k.startswith("_")}
        found.append(json.dumps(noising, sort_keys=True))
        return joined(*found)

    # ---- text

    @property
    def text_width(self) -> int:
        """Width of the text features that cross-attention reads."""
        given = self.backbone.config.get(self.text_config)
        widths = set(given) if isinstance(given, list | tuple) else {given}
        width = widths.pop() if len(widths) == 1 else None
        if not isinstance(width, int):
            raise BridgeError(
                f"'{self.place.id}' names no width of its text: {self.text_config} in the config "
                f"of its {self.backbone_folder} is {given!r}, not one number"
            )
        return width

    @property
    def pooled_width(self) -> int:
        """Width of the pooled text vector; 0 where there is none."""
        return int(self.backbone.config[self.pooled_config]) if self.pooled_config else 0

    @property
    def more_widths(self) -> tuple[int, ...]:
        """Widths of further text sequences; none where one is read."""
        return ()

    @property
    def masks(self) -> bool:
        """Whether the language model is told which tokens are padding."""
        return self.padding != "read"

    @property
    def distilled(self) -> bool:
        """Whether guidance is an input of the model, so that no null prompt is asked."""
        return bool(self.backbone.config.get("guidance_embeds"))

    @cached_property
    def few_steps(self) -> bool:
        """Whether the pipeline's folder says that the model was distilled for a few steps."""
        return bool(self.place.json("model_index.json").get("is_distilled"))

    @property
    def default_scheduler(self) -> str:
        """The sampler that is taken where none is named."""
        return self.process.default

    @property
    def default_steps(self) -> int:
        """Denoising steps where nobody says how many."""
        return self.paper_sampling[0] if self.paper_sampling else stock.default_steps(self)

    @property
    def default_guidance(self) -> float:
        """Weight of classifier-free guidance where nobody names one."""
        return self.paper_sampling[1] if self.paper_sampling else stock.default_guidance(self)

    def _tokens(self) -> int:
        return self.default_tokens

    # ---- training and sampling

    def noise(
        self,
        x0: Tensor,
        timesteps: Tensor | None = None,
        *,
        noise: Tensor | None = None,
        generator: Generators = None,
    ) -> Noised:
        """Clean latents (B, c, h, w) -> noised latents, timesteps (B,) and the training target."""
        return self.process.noise(x0, timesteps, noise, generator, mu=self.mu(*x0.shape[-2:]))

    def mu(self, height: int, width: int, steps: int | None = None) -> float | None:
        """The time shift for latents with these sides, as schedulers take it; None where it is one
        for all. Some families' depends on the steps of sampling, too; training has none.

        A line through what the scheduler config says of few and of many image tokens; its defaults
        are those of `calculate_shift` in diffusers' pipelines.
        """
        if not (isinstance(self.process, Flow) and self.process.dynamic):
            return None
        config = self.process.config
        few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        return float(low + (high - low) * (self.image_tokens(height, width) - few) / (many - few))

    def start(self, scheduler: Any, steps: int, latents: Tensor) -> Tensor:
        """Give a sampler its steps, as the family's pipeline does; its timesteps (steps,)."""
        known = inspect.signature(scheduler.set_timesteps).parameters
        options: dict[str, Any] = {}
        height, width = latents.shape[-2:]
        mu = self.mu(height, width, steps)
        if mu is not None and "mu" in known and scheduler.config.get("use_dynamic_shifting"):
            options["mu"] = mu
        if self.even_sigmas and type(scheduler).__name__.startswith("FlowMatch"):
            options["sigmas"] = self.sigmas(steps)
        return set_timesteps(scheduler, steps, latents.device, **options)

    def sigmas(self, steps: int) -> list[float]:
        """Where `even_sigmas`: the noise levels of sampling, before the shift."""
        return np.linspace(1.0, 1 / steps, steps).tolist()

    def guide(self, without: Tensor, told: Tensor, guidance: float) -> Tensor:
        """Classifier-free guidance (arXiv 2207.12598): answers without and with the prompt -> one.

        1 is without guidance for every family, whatever its pipeline calls that.
        """
        return without + guidance * (told - without)

    def predict(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        """Noised latents (B, c, h, w), timesteps (B,), text -> the model's answer, like x_t.

        Runs in the precision of the backbone; the answer is float32. Channels beyond the
        latents' (a learned variance) are dropped.
        """
        timesteps = to_device(timesteps, self.device).expand(len(x_t))
        if self.distilled and text.guidance is None:  # as it is trained on
            text = replace(text, guidance=torch.ones(len(text), device=text.hidden.device))
        text = self.reads(text).to(dtype=self.dtype, device=self.device)
        answer = self.call(to_device(x_t, self.device).to(self.dtype), timesteps, text)
        return answer[:, : self.latent_channels].float()

    def checkpoint_activations(self) -> None:
        """Compute the backbone's activations anew in the backward pass.

        Raises:
            BridgeError: diffusers' class cannot.
        """
        if not self.backbone._supports_gradient_checkpointing:
            raise BridgeError(
                f"diffusers' {type(self.backbone).__name__} knows no gradient checkpointing; train "
                f"'{self.place.id}' without"
            )
        self.backbone.enable_gradient_checkpointing()

    def reads(self, text: Text) -> Text:
        """What the backbone is given of a text: padding as zeros, where the family says so."""
        if self.padding != "zeroed" or text.mask is None:
            return text
        return replace(text, hidden=text.hidden * text.mask.unsqueeze(-1), mask=None)

    def call(self, x_t: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        """Call the backbone with its own argument names."""
        raise NotImplementedError

    def pipeline(self, scheduler: Any) -> Any:
        """diffusers' own pipeline around these very modules, without a text encoder."""
        return stock.pipeline(self, scheduler)

    def pipeline_text(self, text: Text, null: Text) -> dict[str, Any]:
        """Arguments that hand encoded prompts to that pipeline, by the names that it knows."""
        return stock.arguments(self, text, null)

    def pipeline_guidance(self, guidance: float) -> dict[str, float]:
        """The argument of that pipeline that means this guidance."""
        return {"guidance_scale": guidance}


def load_vision(
    place: Place,
    *,
    dtype: torch.dtype | None = None,
    quantize: Quantize = "none",
    device: torch.device | None = None,
) -> Vision:
    """Load the family of the pipeline class that the checkpoint names.

    Args:
        place: folder or Hub repository in diffusers' pipeline layout, or one file of weights.
        dtype: precision of the frozen weights; None builds the model without weights.
        quantize: in which fewer bits the backbone's blocks are held; their products are in `dtype`.
        device: where quantised weights are made.

    Raises:
        BridgeError: there is no model_index.json, or its class is not supported; or one file is no
            image model that is known as such.
    """
    place = opened(place) if place.single else place
    name = place.json("model_index.json").get("_class_name")
    if not isinstance(name, str):  # a list, where the pipeline comes with code of its own
        raise BridgeError(
            f"model_index.json of '{place.id}' names no pipeline class that is known "
            f"(_class_name: {json.dumps(name)}); known: {', '.join(VISIONS)}"
        )
    return VISIONS[name].load(place, dtype=dtype, quantize=quantize, device=device)
