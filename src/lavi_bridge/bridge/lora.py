"""LoRA through PEFT: injected by pattern into any backbone, trained, saved, loaded and fused.

One path for every model, because several diffusers classes have no `add_adapter`. As published:
scale 1 (alpha = rank), down ~ N(0, 1/rank), up = 0. Dropout on the *output* of the low-rank
branch is a forward hook on PEFT's `lora_B`, which equals the published layer exactly at scale 1.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft import set_peft_model_state_dict as set_state
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lavi_bridge.config import LoRA
from lavi_bridge.errors import BridgeError, first_line
from lavi_bridge.files.atomic import read_safetensors
from lavi_bridge.files.locate import Place

NAME = "default"
"""PEFT's own name for the adapter that a bridge trains; others may be stacked on it."""
PREFIX = "base_model.model."
"""What plain `peft` puts before a layer's name; without it its loader only warns, and is wrong."""
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def inject(model: nn.Module, lora: LoRA, *, seed: int = 0, name: str = "the model") -> int:
    """Put LoRA layers into `model`, in float32 and trainable; return how many.

    Rank 0 leaves the model untouched. The first weights derive from `seed` alone.

    Raises:
        BridgeError: the pattern matches no layer, or a layer that LoRA cannot handle, or the rank
            is above the full rank of every layer.
    """
    if lora.rank == 0:
        return 0
    if lora.rank < 0:
        raise BridgeError(f"LoRA rank must not be negative, not {lora.rank}")
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.rank,
        target_modules=lora.targets,
        init_lora_weights="gaussian",
        fan_in_fan_out=any(type(m).__name__ == "Conv1D" for m in model.modules()),  # GPT-2's
    )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            inject_adapter_in_model(config, model, NAME)
    except ValueError as error:
        kinds = ", ".join(
            sorted(
                {n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, nn.Linear)}
            )[:12]
        )
        raise BridgeError(
            f"LoRA pattern '{lora.targets}' hits nothing usable in {name}, whose linear layers "
            f"end in: {kinds} (peft: {first_line(error)[:120]})"
        ) from error
    check_rank(model, lora.rank, name=name)
    for layer in layers(model).values():
        # PEFT creates them in the base's precision; bf16 steps of 5e-6 would round to nothing
        layer.lora_A[NAME].float()
        layer.lora_B[NAME].float()
        if lora.dropout:
            layer.lora_B[NAME].register_forward_hook(_Dropout(lora.dropout))
    model.train(model.training)  # new layers start in training mode, whatever the model's
    return len(layers(model))


def check_rank(model: nn.Module, rank: int, *, name: str) -> None:
    """Refuse a rank above the full rank of every layer that has LoRA."""
    widest = max(_full_rank(layer) for layer in layers(model).values())
    if rank > widest:
        raise BridgeError(f"LoRA rank {rank} is above what any layer of {name} can have: {widest}")


def layers(model: nn.Module) -> dict[str, LoraLayer]:
    """The layers of the bridge's own LoRA by name, in the order of `named_modules()`."""
    return {name: layer for name, layer in wrapped(model).items() if NAME in layer.lora_A}


def wrapped(model: nn.Module) -> dict[str, LoraLayer]:
    """The layers of any LoRA by their name in the base model: the bridge's own and `stacked`."""
    return {name: m for name, m in model.named_modules() if isinstance(m, LoraLayer)}


def parameters(model: nn.Module) -> list[nn.Parameter]:
    """The trained parameters of `model`: down and up of every layer of the bridge's own LoRA."""
    own = tuple(f".{factor}.{NAME}.weight" for factor in ("lora_A", "lora_B"))
    return [p for name, p in model.named_parameters() if name.endswith(own)]


def state(model: nn.Module) -> dict[str, Tensor]:
    """The LoRA weights under the names that plain `peft` expects."""
    found = get_peft_model_state_dict(model, adapter_name=NAME, save_embedding_layers=False)
    return {PREFIX + key: tensor.detach().contiguous() for key, tensor in found.items()}


def save(model: Any, folder: Path, *, base: str) -> None:
    """Write `folder` in PEFT's layout, so that `PeftModel.from_pretrained` reads it."""
    from safetensors.torch import save_file

    config: LoraConfig = copy.copy(model.peft_config[NAME])
    config.base_model_name_or_path = base
    config.inference_mode = True
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    save_file(state(model), folder / WEIGHTS, metadata={"format": "pt"})


def load(model: nn.Module, place: Place) -> None:
    """Fill the injected layers from a PEFT folder, checking every name and shape.

    Raises:
        BridgeError: the file is missing or damaged, or does not fit the injected layers.
    """
    path = place.file(WEIGHTS)
    if path is None:
        raise BridgeError(f"'{place.id}' has no {WEIGHTS}")
    found, own = read_safetensors(path), state(model)
    if odd := sorted(found.keys() ^ own.keys()):
        raise BridgeError(f"{path}: '{odd[0]}' and the model's LoRA layers do not match")
    for name, tensor in found.items():
        if tensor.shape != own[name].shape:
            expected = tuple(own[name].shape)
            raise BridgeError(f"{path}: '{name}' is {tuple(tensor.shape)}, expected {expected}")
    set_state(model, {k.removeprefix(PREFIX): v for k, v in found.items()}, adapter_name=NAME)


def _full_rank(layer: LoraLayer) -> int:
    """The rank of a layer's weight when nothing is low about it."""
    return min(layer.lora_A[NAME].weight[0].numel(), layer.lora_B[NAME].weight.shape[0])


@contextmanager
def fused(model: nn.Module) -> Iterator[None]:
    """Make the LoRA light while sampling: the same output from fewer kernels; without gradients.

    Into float32 weights it is added. In bfloat16, W + BA rounds back to W in 86 % of the entries
    where BA is 6e-4 of W, so a lightly trained LoRA would all but vanish; there the branch stays,
    in the base's precision: two kernels in place of six, and none of them a cast. Weights that are
    spread over processes are left as they are, and so is the branch of layers that are widened on a
    CPU without bfloat16 (`running/widened.py`), as it is faster in float32 there.
    Afterwards all is the very same bits as before: base weights are kept and put back, as unmerging
    would leave rounding behind.
    """
    with ExitStack() as stack:
        for layer in wrapped(model).values():
            base = layer.get_base_layer()
            if isinstance(base.weight, DTensor) or layer.merged or layer.lora_variant:
                continue  # the latter two within a call of this
            if layer.disable_adapters or getattr(base, "groups", 1) > 1:
                continue  # merged, it would be taken out again, which leaves rounding behind
            names = [name for name in layer.active_adapters if name in layer.lora_A]
            if base.weight.dtype == torch.float32:
                kept = base.weight.detach().clone()
                layer.merge(adapter_names=names)
                stack.callback(_unfuse, layer, kept)
            elif type(base) in (nn.Linear, nn.Conv2d):
                _lighten(layer, names)
                stack.callback(_unlighten, layer)
        yield


@contextmanager
def folded(model: nn.Module) -> Iterator[None]:
    """Train small layers as one product with W + BA, while inside: the same function and gradients.

    A narrow branch costs a CPU more than its arithmetic. Wide layers would pay for it, as the
    gradient of W + BA is as large as W; they keep their branch, as do layers with dropout.
    """
    found = [layer for layer in layers(model).values() if _folds(layer)]
    for layer in found:
        layer.forward = partial(_product, layer)
    try:
        yield
    finally:
        for layer in found:
            vars(layer).pop("forward", None)


def _folds(layer: LoraLayer) -> bool:
    base, up = layer.get_base_layer(), layer.lora_B[NAME]
    plain = type(base) is nn.Linear and base.weight.dtype == torch.float32
    if not plain or isinstance(base.weight, DTensor) or up._forward_hooks:  # a hook is dropout
        return False
    rank = up.in_features
    return base.in_features * base.out_features <= 8 * rank * (base.in_features + base.out_features)


def _product(layer: LoraLayer, x: Tensor) -> Tensor:
    if layer.merged or layer.disable_adapters:
        answer: Tensor = type(layer).forward(layer, x)
        return answer
    base, down, up = layer.get_base_layer(), layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
    return nn.functional.linear(x, base.weight + layer.scaling[NAME] * (up @ down), base.bias)


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """The model as it was before the bridge's own LoRA, while inside."""
    found = [(layer, list(layer.active_adapters)) for layer in layers(model).values()]
    for layer, names in found:
        if others := [name for name in names if name != NAME]:
            activate(layer, others)
        else:
            layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer, names in found:
            if len(names) > 1:
                activate(layer, names)
            else:
                layer.enable_adapters(True)


def activate(layer: LoraLayer, names: list[str]) -> None:
    """Have a layer add what these LoRAs give; what trains is what did."""
    trained = [(p, p.requires_grad) for p in layer.parameters()]
    layer.set_adapter(names)
    for parameter, trains in trained:
        parameter.requires_grad_(trains)


@contextmanager
def scaled(model: nn.Module, scale: float) -> Iterator[None]:
    """Multiply what the LoRA adds to each layer, while inside: W + scale · BA; 1 does nothing.

    `fused` follows where it comes after.
    """
    found = [(layer, layer.scaling[NAME]) for layer in layers(model).values() if scale != 1]
    for layer, own in found:
        layer.scaling[NAME] = scale * own
    try:
        yield
    finally:
        for layer, own in found:
            layer.scaling[NAME] = own


def _unfuse(layer: LoraLayer, kept: Tensor) -> None:
    layer.merged_adapters.clear()
    layer.get_base_layer().weight.data.copy_(kept)  # where it is: CUDA graphs hold the address


class _Light(nn.Module):
    """A LoRA's branch in its base's precision, in the place that PEFT has for other branches."""

    down: Tensor
    up: Tensor

    def __init__(self, layer: LoraLayer, name: str) -> None:
        super().__init__()
        self.name = name
        base = layer.get_base_layer()
        for part, factor in (("down", layer.lora_A[name]), ("up", layer.lora_B[name])):
            self.register_buffer(part, torch.empty_like(factor.weight, dtype=base.weight.dtype))
        self.refresh(layer)

    def refresh(self, layer: LoraLayer) -> None:
        """Take the layer's weights as they are now, at the same address: CUDA graphs hold it."""
        with torch.no_grad():
            self.down.copy_(layer.lora_A[self.name].weight)
            self.up.copy_(layer.lora_B[self.name].weight * layer.scaling[self.name])

    def forward(self, layer: LoraLayer, *, x: Tensor, result: Tensor, **_others: Any) -> Tensor:
        """Add the branch to the base's answer, which is nobody else's."""
        down, up = self.down, self.up.flatten(1)
        if down.ndim == 2:
            flat, inner = result.flatten(0, -2), nn.functional.linear(x, down).flatten(0, -2)
            return flat.addmm_(inner, up.t()).view_as(result)
        base: Any = layer.get_base_layer()
        inner = nn.functional.conv2d(x, down, None, base.stride, base.padding, base.dilation)
        flat = result.flatten(2)  # no copy, in either layout
        return flat.baddbmm_(up.expand(len(x), -1, -1), inner.flatten(2)).view_as(result)


_LIGHT: WeakKeyDictionary[LoraLayer, dict[str, _Light]] = WeakKeyDictionary()
"""Branches of earlier pictures, for the next ones."""


def _lighten(layer: LoraLayer, names: list[str]) -> None:
    weight = layer.get_base_layer().weight
    kept = _LIGHT.setdefault(layer, {})
    for name in names:
        light = kept.get(name)
        if light is None or (light.down.dtype, light.down.device) != (weight.dtype, weight.device):
            light = kept[name] = _Light(layer, name)
        light.refresh(layer)
        layer.lora_variant[name] = light
    layer.cast_input_dtype_enabled = False


def _unlighten(layer: LoraLayer) -> None:
    layer.lora_variant.clear()
    layer.cast_input_dtype_enabled = True


def forget(layer: LoraLayer, name: str) -> None:
    """Let go of what earlier pictures kept of a LoRA that is taken away."""
    _LIGHT.get(layer, {}).pop(name, None)


class _Dropout:
    """Forward hook that drops part of a layer's output while training."""

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        return nn.functional.dropout(output, self.p, training=module.training)
