"""Models of a bridge as their libraries load them: with LoRA in their weights, or as they were."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
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
"""Of one file of weights, so that a download that broke off begins again with no more than that."""


def save_diffusers(model: Any, folder: Path, *, dtype: torch.dtype | None, fused: bool) -> float:
    """Write a model of diffusers; return what of its LoRA rounding loses, see `plain_state`."""
    with torch.device("meta"):
        shapes = type(model).from_config(model.config)
    state, lost = plain_state(model, dtype, fused=fused)
    shapes.load_state_dict(state, assign=True)
    with quiet():
        shapes.save_pretrained(folder, max_shard_size=LARGEST)
    return lost


def save_language(
    language: Language, folder: Path, *, dtype: torch.dtype | None, fused: bool
) -> float:
    """Write a language model, without layers that are not read; return as `save_diffusers` does."""
    state, lost = plain_state(language.model, dtype, fused=fused)
    save_transformers(language.model, folder, state)
    if language.let_go:
        path = folder / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        kept = len(stack_of(language)[1])
        names = getattr(language.config, "attribute_map", {})
        config[names.get("num_hidden_layers", "num_hidden_layers")] = kept
        if config.get("layer_types"):
            config["layer_types"] = config["layer_types"][:kept]
        write_text(path, json.dumps(config, indent=2) + "\n")
    return lost


def save_transformers(model: Any, folder: Path, state: dict[str, Tensor]) -> None:
    """Write a model of transformers with these weights."""
    with quiet(), _no_bar(), _plain(model):
        model.save_pretrained(folder, state_dict=state, max_shard_size=LARGEST)


@contextmanager
def _plain(model: Any) -> Iterator[None]:
    """Let the library forget that the weights were of a GGUF file: they are whole by now."""
    kept = vars(model).pop("hf_quantizer", None)
    told = vars(model.config).pop("quantization_config", None)
    try:
        yield
    finally:
        if kept is not None:
            model.hf_quantizer = kept
        if told is not None:
            model.config.quantization_config = told


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


def plain_state(
    model: nn.Module, dtype: torch.dtype | None, *, fused: bool
) -> tuple[dict[str, Tensor], float]:
    """The weights under the names that they have without LoRA layers.

    Args:
        dtype: to which they are cast; None leaves each as it is.
        fused: add what LoRA adds, in float32, and round once.

    Returns:
        Also how much of what LoRA adds is lost by rounding the sum, as a part of its length (0 to
        about 1): in 16 bits a light LoRA falls between two numbers.
    """
    state, error, added = dict[str, Tensor](), 0.0, 0.0
    ours = {f"{n}.base_layer.weight": layer for n, layer in lora.layers(model).items()}
    for name, tensor in model.state_dict().items():
        if ".lora_" in name:
            continue
        whole = tensor.detach()
        kind = dtype if dtype is not None and whole.is_floating_point() else whole.dtype
        kept = whole.to(kind)
        if fused and name in ours:
            delta = ours[name].get_delta_weight(lora.NAME).detach().float()
            summed = (whole.float() + delta).to(kind)
            if kind != torch.float32:
                error += float((summed.float() - kept.float() - delta).square().sum())
                added += float(delta.square().sum())
            kept = summed
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
