"""The text half where ComfyUI can put it aside when it needs the memory."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.metadata import version
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from .allowed import BASE, LANGUAGE
from .folders import TEXT, BridgeError, Folder
from .text_half import Text, TextHalf

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Held(nn.Module):
    """A model as ComfyUI's patchers take it: they set its `device`, which `TextHalf` computes."""

    def __init__(self, reads: TextHalf) -> None:
        super().__init__()
        self.reads = reads


class Reader:
    """A language model and an adapter, from a prompt to what the image model reads.

    Args:
        dtype: of the language model: a name of DTYPES, or `auto`: bfloat16 where ComfyUI runs text
            encoders on a device that has it, float32 elsewhere. One that overflows in float16 stays
            in float32 there.

    Raises:
        BridgeError: the folder is damaged, or of a model that this transformers does not have.
    """

    def __init__(self, folder: Folder, dtype: str = "auto") -> None:
        self.folder = folder
        self.memory = _memory()
        _check_class(folder)
        try:
            half = TextHalf.from_pretrained(
                folder.path / TEXT, dtype=DTYPES.get(dtype, self._own())
            )
        except ImportError as error:
            raise BridgeError(f"'{folder.path}' needs a package: {_said(error)}") from error
        except (
            *(OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError),
            SafetensorError,
        ) as error:
            raise BridgeError(
                f"the text half in '{folder.path}' cannot be loaded: {_said(error)}; export it anew"
            ) from error
        self.held = Held(half)
        self.patcher: Any = None
        if self.memory is not None:
            self.patcher = import_module("comfy.model_patcher").ModelPatcher(
                self.held,
                load_device=self.memory.text_encoder_device(),
                offload_device=self.memory.text_encoder_offload_device(),
            )

    def _own(self) -> torch.dtype:
        memory = self.memory
        if memory is not None and memory.should_use_bf16(memory.text_encoder_device()):
            return torch.bfloat16
        return torch.float32

    def __call__(self, prompt: str) -> Text:
        """What is read of a prompt, a batch of one, in float32, where ComfyUI wants it."""
        if self.memory is None:
            return self.held.reads([prompt])
        # whole: its layers are not ComfyUI's, which alone can be on two devices
        self.memory.load_models_gpu([self.patcher], force_full_load=True)
        self.held.to(self.patcher.load_device)
        text = self.held.reads([prompt])
        there = self.memory.intermediate_device()
        tensors = (text.hidden, text.mask, text.pooled)
        return Text(*(x if x is None else x.to(there) for x in tensors))  # type: ignore[arg-type]


def _check_class(folder: Folder) -> None:
    """Refuse what is no language model where its class is said to be.

    Raises:
        BridgeError: this transformers has no such module or class, or it is no model.
    """
    told = json.loads((folder.path / TEXT / LANGUAGE / BASE).read_text(encoding="utf-8"))
    module, name = told["module"], told["class"]
    try:
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise BridgeError(
            f"'{folder.path}' was written with transformers {folder.transformers}; "
            f"{version('transformers')} here gives no {name} of '{module}': {_said(error)}"
        ) from error
    model = import_module("transformers").PreTrainedModel
    own = isinstance(kind, type) and issubclass(kind, model) and kind.__module__ == module
    if not own:
        raise BridgeError(f"'{folder.path}' asks for '{name}' of '{module}', which is no model")


def _said(error: Exception) -> str:
    """An error's first line, or its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _memory() -> Any:
    """ComfyUI's accounts of memory; None outside of it."""
    try:
        return import_module("comfy.model_management")
    except ModuleNotFoundError as error:
        if error.name not in ("comfy", "comfy.model_management"):
            raise
        return None
