"""What a pair would need, from configs alone: the models are built without weights.

Parameters and layers are counted on the real classes on torch's meta device. Activation memory is
counted, too: one training step runs on shapes only, and what autograd would keep is added up.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from lavi_bridge.bridge import lora
from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.config import Quantize
from lavi_bridge.errors import BridgeError
from lavi_bridge.plan.fits import Fit, Needs, lines
from lavi_bridge.plan.step import count_step
from lavi_bridge.running.device import choose_dtype
from lavi_bridge.running.quantize import linears, quantizable, quantized_bytes

PARTS = ("adapter", "language", "vision")


@dataclass(frozen=True)
class Plan:
    """The plan of a pair. Sizes are in GB (1e9 bytes), parameters are counts."""

    language: str
    vision: str
    language_family: str
    vision_family: str
    language_width: int
    vision_text_width: int
    adapter: str
    adapter_parameters: int
    language_parameters: int
    language_lora_layers: int
    language_lora_parameters: int
    vision_parameters: int
    vision_lora_layers: int
    vision_lora_parameters: int
    tokens: int
    masked: bool
    resolution: int
    latent_shape: tuple[int, int, int]
    dtype: str
    batch_size: int
    weights_gb: float
    training_gb: float
    """Without what autograd keeps, where that is not `counted`."""
    sampling_gb: float
    download_gb: float
    bridge_gb: float
    training_tflop: float | None
    """TFLOP of one image in training, forward and backward, without the autoencoder. None where
    it was not asked for."""
    sampling_tflop: float | None
    """TFLOP of one image in sampling, for each denoising step with guidance."""
    default_steps: int
    """Denoising steps where nobody says how many."""
    counted: bool = True
    """Whether the image model runs on shapes alone; some look at values."""
    checkpointed_gb: float | None = None
    """`training_gb` with gradient checkpointing; None where not counted, or not to be had."""
    capped: int | None = None
    """The adapter's middle width, where it is less than halfway between the models'."""
    fits: tuple[Fit, ...] = ()

    @property
    def trained(self) -> int:
        """All trained parameters."""
        return self.adapter_parameters + self.language_lora_parameters + self.vision_lora_parameters

    def json(self) -> str:
        """All figures as a JSON object."""
        return json.dumps(dataclasses.asdict(self) | {"trained_parameters": self.trained}, indent=2)

    def table(self) -> str:
        """All figures for people."""
        mask = "masked in both models" if self.masked else "no mask, padding is read"
        size = "×".join(map(str, self.latent_shape))
        training = ""
        if self.training_tflop is not None:
            training = f"≈ {self.training_tflop:.3g} TFLOP an image in training, "
        rows = [
            (
                "language",
                f"{self.language} ({self.language_family}, {_count(self.language_parameters)})",
            ),
            ("vision", f"{self.vision} ({self.vision_family}, {_count(self.vision_parameters)})"),
            (
                "adapter",
                f"{self.adapter} {self.language_width} → {self.vision_text_width}, "
                f"{_count(self.adapter_parameters)}"
                + (f", its middle width capped at {self.capped}" if self.capped else ""),
            ),
            ("language LoRA", _layers(self.language_lora_layers, self.language_lora_parameters)),
            ("vision LoRA", _layers(self.vision_lora_layers, self.vision_lora_parameters)),
            ("trained in all", _count(self.trained)),
            ("tokens", f"{self.tokens}, {mask}"),
            ("images", f"{self.resolution} px, latents {size}"),
            (
                "training memory",
                f"{'≈' if self.counted else 'above'} {gigabytes(self.training_gb)} at batch "
                f"{self.batch_size}, frozen "
                f"models in {self.dtype}{self._checkpointed()}",
            ),
            ("sampling memory", f"≈ {gigabytes(self.sampling_gb)} for one image with guidance"),
            ("compute", self._compute(training)),
            (
                "disk",
                f"{gigabytes(self.download_gb)} of base weights in float32, "
                f"{gigabytes(self.bridge_gb)} a saved bridge",
            ),
            *lines(self.fits, counted=self.counted),
        ]
        return "\n".join(f"{name:16} {value}" for name, value in rows)

    def _checkpointed(self) -> str:
        if self.checkpointed_gb is None:
            return ", without checkpointing"
        return f"; {gigabytes(self.checkpointed_gb)} with checkpointing"

    def _compute(self, training: str) -> str:
        if self.sampling_tflop is None:
            return "not counted: the image model looks at values, which a plan does not have"
        return f"{training}{float(f'{self.sampling_tflop:.2g}'):g} a step in sampling"


def make_plan(
    language: str,
    vision: str,
    *,
    adapter: str = "feedforward",
    adapter_parameters: int | None = None,
    language_rank: int = 32,
    vision_rank: int = 32,
    tokens: int | None = None,
    language_layers: str = "all",
    layers: str | int = "last",
    template: str | None = None,
    resolution: int | None = None,
    batch_size: int = 1,
    dtype: str = "bfloat16",
    quantize: Quantize = "none",
    quantize_vision: Quantize = "none",
    processes: int = 1,
    compute: bool = True,
    checkpointing: bool = True,
    trust_remote_code: bool = False,
) -> Plan:
    """Plan a pair; only JSON files are read.

    Args:
        adapter_parameters: that the adapter may have; its usual size by default.
        tokens: that a prompt may have; the vision model's own number by default.
        language_layers: of the language model that get LoRA: `all`, or `last:K`.
        layers, template: what is read of it; see `Bridge.connect`.
        quantize: in how many bits the language model is held.
        quantize_vision: in how many the vision model's blocks are.
        processes: over which weights, gradients and optimizer are spread (sharding).
        compute: count the compute of a backward pass, too, which takes some seconds.
        checkpointing: count a step with gradient checkpointing, too, likewise.
        trust_remote_code: run code that comes with the language model.

    Raises:
        BridgeError: a config is missing, a class unsupported, or the LoRA pattern hits nothing.
    """
    bridge = Bridge.outline(
        language,
        vision,
        adapter=adapter,
        adapter_parameters=adapter_parameters,
        language_rank=language_rank,
        vision_rank=vision_rank,
        tokens=tokens,
        language_layers=language_layers,
        layers=layers,
        template=template,
        trust_remote_code=trust_remote_code,
    )
    if batch_size < 1:
        raise BridgeError(f"batch size must be at least 1, not {batch_size}")
    precision = choose_dtype(dtype, torch.device("cpu"))
    side = resolution or bridge.vision.resolution
    shape = bridge.vision.latent_shape(side, side)
    lm, image_model = bridge.language.model, bridge.vision.backbone
    own = [] if bridge.own_encoders is None else [bridge.own_encoders]
    for model in (lm, image_model, bridge.vision.vae, *own):
        _cast_frozen(model, precision)
    parts = {name: sum(p.numel() for p in part) for name, part in bridge.parts().items()}
    frozen = {
        "language": _frozen(lm),
        "vision": _frozen(image_model),
        "vae": _frozen(bridge.vision.vae),
        "own": 0 if bridge.own_encoders is None else _frozen(bridge.own_encoders),
    }
    trained = sum(parts.values()) * 4 / 1e9
    size, ways = precision.itemsize, typing.get_args(Quantize)
    blocks = quantizable(image_model, bridge.vision.lora_targets).values()
    few = {"language": linears(lm).values(), "vision": blocks}
    held = {
        name: {how: _held(frozen[name], layers, how, size) for how in ways}
        for name, layers in few.items()
    }
    fused, decoding = _fused(image_model), _decoding(bridge, side, precision)
    asked = 1 if bridge.vision.distilled else 2  # texts of a step of sampling
    injected = len(lora.layers(lm)), len(lora.layers(image_model))
    # last: it turns the outline into fake tensors
    step = count_step(bridge, batch_size, shape, backward=compute, checkpointing=checkpointing)
    needs = Needs(
        held["language"],
        held["vision"],
        vae=frozen["vae"] * size / 1e9,
        own=frozen["own"] * size / 1e9,
        trained=trained,
        kept=step.kept_gb,
        checkpointed=step.checkpointed_gb,
        fused=fused,
        decoding=decoding,
    )
    weights, bits = needs.weights(quantize, quantize_vision), (quantize, quantize_vision)
    # processes share weights, gradients and optimizer, but not what autograd keeps
    spared = (weights - needs.own + 4 * trained) * (1 - 1 / processes)
    less = needs.training(*bits, True) - spared
    return Plan(
        language=language,
        vision=vision,
        language_family=type(bridge.language).__name__,
        vision_family=type(bridge.vision).__name__,
        language_width=bridge.language.handed_width,
        vision_text_width=bridge.vision.text_width,
        adapter=adapter,
        adapter_parameters=parts["adapter"],
        language_parameters=frozen["language"],
        language_lora_layers=injected[0],
        language_lora_parameters=parts["language"],
        vision_parameters=frozen["vision"],
        vision_lora_layers=injected[1],
        vision_lora_parameters=parts["vision"],
        tokens=bridge.tokens,
        masked=bridge.vision.masks,
        resolution=side,
        latent_shape=shape,
        dtype=dtype,
        batch_size=batch_size,
        weights_gb=weights,
        training_gb=needs.training(*bits) - spared,
        sampling_gb=needs.drawing(*bits),
        download_gb=(sum(frozen.values()) + bridge.language.let_go) * 4 / 1e9,
        bridge_gb=trained,
        training_tflop=step.tflop if compute and step.counted else None,
        sampling_tflop=asked * step.forward_tflop if step.counted else None,
        default_steps=bridge.vision.default_steps,
        counted=step.counted,
        checkpointed_gb=None if step.checkpointed_gb is None else less,
        capped=bridge.adapter.capped,
        fits=needs.fits(),
    )


def _held(numbers: int, layers: Iterable[nn.Linear], how: Quantize, itemsize: int) -> float:
    """GB of a model of so many numbers, `layers` of which are held in fewer bits."""
    few = list(layers)
    whole = numbers - sum(layer.weight.numel() for layer in few)
    return (whole * itemsize + sum(quantized_bytes(layer, how, itemsize) for layer in few)) / 1e9


def _frozen(model: nn.Module) -> int:
    return sum(p.numel() for name, p in model.named_parameters() if "lora_" not in name)


def _cast_frozen(model: nn.Module, dtype: torch.dtype) -> None:
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.to(dtype)


def _fused(model: nn.Module) -> float:
    """GB of the float32 base weights that are kept aside while LoRA is fused into them."""
    bases = [layer.get_base_layer().weight for layer in lora.layers(model).values()]
    return sum(weight.numel() * 4 for weight in bases if weight.dtype == torch.float32) / 1e9


def _decoding(bridge: Bridge, side: int, dtype: torch.dtype) -> float:
    """GB of the autoencoder's widest stage: its first width at full size, a few tensors deep."""
    config = bridge.vision.vae.config
    keys = ("decoder_block_out_channels", "block_out_channels", "up_block_out_channels")
    widths = next((found for key in keys if (found := config.get(key))), None)
    widths = widths or [config.base_dim * many for many in config.dim_mult]  # of videos
    return 4 * widths[min(1, len(widths) - 1)] * side * side * dtype.itemsize / 1e9


def _count(number: int) -> str:
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.2f} {unit}"
    return str(number)


def gigabytes(number: float) -> str:
    """So many GB for people; less than one in MB."""
    return f"{number:.1f} GB" if number >= 1 else f"{1000 * number:.0f} MB"


def _layers(layers: int, parameters: int) -> str:
    return f"{layers} layers, {_count(parameters)}" if layers else "untouched"
