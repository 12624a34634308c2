"""A model of an exported folder: its weights lie there, or where they were published."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from safetensors.torch import load_file

BASE, LORA = "base.json", "lora"


def load_base(folder: Path, dtype: torch.dtype | None) -> Any:
    """Load the model that `base.json` tells of, and put the LoRA layers beside it into it.

    Args:
        folder: holds `base.json`; weights in its `subfolder`, where it names no `id`; and LoRA.

    Raises:
        ValueError: the LoRA layers are not those of the model.
    """
    told = json.loads((folder / BASE).read_text(encoding="utf-8"))
    place: dict[str, Any] = {"pretrained_model_name_or_path": folder / told["subfolder"]}
    if told["id"]:
        place = {
            "pretrained_model_name_or_path": told["id"],
            "subfolder": told["subfolder"],
            "revision": told["revision"],
        }
    kind = getattr(import_module(told["module"]), told["class"])
    key = "dtype" if told["module"].startswith("transformers") else "torch_dtype"
    model = kind.from_pretrained(**place, **told["options"], **{key: dtype or torch.float32})
    model = model.get_submodule(told["part"])
    if (folder / LORA).is_dir():
        put_lora(model, folder / LORA)
    return model.eval()


def put_lora(model: torch.nn.Module, folder: Path) -> None:
    """Put the LoRA layers of a folder in PEFT's layout into a model, in float32.

    Raises:
        ValueError: they are not those of the model.
    """
    peft = import_module("peft")  # diffusers asks for all that a file imports, wherever it does

    kept = load_file(folder / "adapter_model.safetensors")
    state = {name.removeprefix("base_model.model."): tensor for name, tensor in kept.items()}
    peft.inject_adapter_in_model(peft.LoraConfig.from_pretrained(str(folder)), model)
    told = peft.set_peft_model_state_dict(model, state)
    layers = [p for name, p in model.named_parameters() if "lora_" in name]
    if told.unexpected_keys or len(layers) != len(state):
        raise ValueError(
            f"the LoRA layers in '{folder}' are not those of the model: it has {len(layers)} "
            f"weights for {len(state)} (has the base model moved or changed?)"
        )
    for parameter in layers:
        parameter.data = parameter.data.float()


class Base(ModelMixin, ConfigMixin):
    """A component that is loaded from where it was published."""

    config_name = BASE

    @classmethod
    def from_pretrained(cls, folder: str, torch_dtype: Any = None, **_options: Any) -> Any:
        """The model itself, an instance of its own class."""
        return load_base(Path(folder), torch_dtype)
