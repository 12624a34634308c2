"""Models of a bridge as their libraries load them: with LoRA in their weights, or as they were."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lavi_bridge.bridge import lora
from lavi_bridge.errors import BridgeError
from lavi_bridge.export.written.base import BASE
from lavi_bridge.files.atomic import write_text
from lavi_bridge.files.locate import Place
from lavi_bridge.files.pretrained import quiet
from lavi_bridge.languages import Language
from lavi_bridge.languages.layers import stack_of

LARGEST = "5GB"
"""Of one file of weights, as the libraries cut them."""


def save_diffusers(model: Any, folder: Path, *, dtype: torch.dtype | None, fused: bool) -> float:
    """Write a model of diffusers; return what of its LoRA rounding loses, see `plain_state`."""
    with torch.device("meta"):
        shapes = type(model).from_config(model.config)
    with lora.fused(model) if fused else nullcontext():
        state, lost = plain_state(model, dtype)
        shapes.load_state_dict(state, assign=True)
        with quiet():
            shapes.save_pretrained(folder, max_shard_size=LARGEST)
    return lost


def save_language(
    language: Language, folder: Path, *, dtype: torch.dtype | None, fused: bool
) -> float:
    """Write a language model, without layers that are not read; return as `save_diffusers` does."""
    model = language.model
    with lora.fused(model) if fused else nullcontext():
        state, lost = plain_state(model, dtype)
        with quiet(), _no_bar():
            model.save_pretrained(folder, state_dict=state, max_shard_size=LARGEST)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("quantization_config", None)  # of a GGUF file, say: these weights are whole
    if language.let_go:
        kept = len(stack_of(language)[1])
        names = getattr(language.config, "attribute_map", {})
        config[names.get("num_hidden_layers", "num_hidden_layers")] = kept
        if config.get("layer_types"):
            config["layer_types"] = config["layer_types"][:kept]
    write_text(path, json.dumps(config, indent=2) + "\n")
    return lost


@contextmanager
def _no_bar() -> Iterator[None]:
    """Hide the library's bar over its files, mostly one."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def plain_state(model: nn.Module, dtype: torch.dtype | None) -> tuple[dict[str, Tensor], float]:
    """The weights under the names that they have without LoRA layers, cast to `dtype`.

    Also how much of what LoRA adds is lost by rounding the sum, as a part of its length (0 to
    about 1): in 16 bits a light LoRA falls between two numbers.
    """
    state, ours, error, added = {}, lora.layers(model), 0.0, 0.0
    for name, tensor in model.state_dict().items():
        if ".lora_" in name or ".base_layer.lora_" in name:
            continue
        whole = tensor.detach()
        rounds = dtype is not None and whole.is_floating_point()
        kept = whole.to(dtype) if rounds else whole
        layer = ours.get(name.removesuffix(".base_layer.weight"))
        if layer is not None and layer.merged and rounds:
            delta = layer.get_delta_weight(lora.NAME).detach().float()
            base = (whole.float() - delta).to(dtype).float()
            error += float((kept.float() - base - delta).square().sum())
            added += float(delta.square().sum())
        state[name.replace(".base_layer.", ".")] = kept.contiguous()
    return state, (error / added) ** 0.5 if added else 0.0


@dataclass(frozen=True)
class Loads:
    """How a model is loaded again: what `base.json` says."""

    module: str
    """Where its class is imported from."""
    name: str
    """Of the class."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the class's `from_pretrained`."""
    part: str = ""
    """The module of what is loaded that is used; empty for all."""
    place: Place | None = None
    """Where the weights were published; None where they lie beside."""
    subfolder: str = ""
    """Where they lie beside."""

    def write(self, folder: Path) -> None:
        """Write it into the folder of the model."""
        told = {
            "module": self.module,
            "class": self.name,
            "options": self.options,
            "part": self.part,
            "id": self.place and self.place.root,
            "subfolder": self.place.subfolder if self.place else self.subfolder,
            "revision": self.place and (self.place.commit() or self.place.revision),
        }
        write_text(folder / BASE, json.dumps(told, indent=2) + "\n")


def beside(language: Language) -> Loads:
    """How a language model is loaded that was written by `save_language`.

    Raises:
        BridgeError: it comes with code of its own.
    """
    kind = type(language.model)
    if kind.__module__.startswith("transformers_modules"):
        raise BridgeError(
            f"'{language.place.id}' comes with code of its own, which an exported folder does not "
            "bring: it has no export"
        )
    return Loads(kind.__module__, kind.__name__, dict(language.model_options))


def published(language: Language) -> Loads:
    """How a language model is loaded from where it was published, and which part of it is used.

    Raises:
        BridgeError: it comes with code of its own.
    """
    from transformers import AutoConfig

    kind, itself = type(language), beside(language)
    loads: Any = kind._model_class()
    if not hasattr(loads, "from_config"):  # a class of one model
        return replace(itself, place=language.place)
    config = AutoConfig.from_pretrained(**language.place.pretrained())
    with torch.device("meta"):
        whole = loads.from_config(config, **itself.options)
        used = kind.prepare(whole)
    part = next(found for found, submodule in whole.named_modules() if submodule is used)
    return Loads("transformers", loads.__name__, itself.options, part, language.place)
