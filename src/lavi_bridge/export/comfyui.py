"""What ComfyUI's nodes read: the vision model's LoRA under the names that ComfyUI looks for.

The names were read in ComfyUI v0.3.64 (`comfy/lora.py`): a U-Net's layers by `lora_unet_` and their
path with `_` for `.`; PixArt's by `transformer.` and their path; each with its own alpha.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from lavi_bridge.adapters import ADAPTERS
from lavi_bridge.bridge import lora
from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.export import models, source

TEXT = "text"
VISION_LORA = "vision_lora.safetensors"


def refusal(bridge: Bridge) -> str | None:
    """Why the nodes cannot read a bridge; None where they can."""
    pipeline, kind = bridge.vision.pipeline_class, bridge.adapter.kind
    if bridge.vision.comfyui_names is None:
        return f"its nodes know Stable Diffusion 1.x and 2.x, SDXL and PixArt, not {pipeline}"
    if bridge.adapter.needs_own:
        return f"the '{kind}' adapter reads the own encoder, too: take form merged or light"
    return None


@dataclass(frozen=True)
class Fits:
    """Which models of ComfyUI a bridge fits."""

    pipeline: str
    family: str
    """How ComfyUI names its layers: `unet` or `pixart`."""
    width: int
    """Of the text that it reads."""
    pooled: int
    """Width of a pooled vector; 0 where there is none."""
    layers: int
    """That have LoRA."""


def fits(bridge: Bridge) -> Fits:
    """What `bridge.json` says of the image model, for the nodes to check."""
    vision = bridge.vision
    assert vision.comfyui_names is not None  # others are refused
    layers = len(lora.layers(vision.backbone))
    widths = vision.text_width, vision.pooled_width
    return Fits(vision.pipeline_class, vision.comfyui_names, *widths, layers)


def write_lora(bridge: Bridge, path: Path, dtype: torch.dtype | None) -> float:
    """Write the vision model's LoRA for ComfyUI.

    Returns what is lost of it (0 to about 1) where ComfyUI adds it to weights in float16, as it
    does on most graphics cards.
    """
    told = {key: str(value) for key, value in asdict(fits(bridge)).items()}
    state = {name: tensor.cpu() for name, tensor in lora_state(bridge, dtype).items()}
    save_file(state, path, metadata={"format": "pt", "bridge": bridge.id, **told})
    return models.plain_state(bridge.vision.backbone, torch.float16, fused=True)[1]


def lora_state(bridge: Bridge, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The vision model's LoRA by ComfyUI's names: of each layer down, up, alpha (scale × rank)."""
    unet, state = bridge.vision.comfyui_names == "unet", dict[str, Tensor]()
    first, second = ("lora_down", "lora_up") if unet else ("lora_A", "lora_B")
    for path, layer in lora.layers(bridge.vision.backbone).items():
        name = f"lora_unet_{path.replace('.', '_')}" if unet else f"transformer.{path}"
        down, up = (w[lora.NAME].weight.detach() for w in (layer.lora_A, layer.lora_B))
        state[f"{name}.{first}.weight"] = down.to(dtype or down.dtype).contiguous()
        state[f"{name}.{second}.weight"] = up.to(dtype or up.dtype).contiguous()
        state[f"{name}.alpha"] = torch.tensor(float(layer.scaling[lora.NAME] * len(down)))
    return state


def text_half() -> str:
    """The source of the nodes' text half, with every adapter that has one (`make comfyui`)."""
    kinds = [k for k in sorted(ADAPTERS) if not (ADAPTERS[k].timed or ADAPTERS[k].needs_own)]
    return source.text_half([kind for kind in kinds if kind != "identity"])
