"""diffusers' own pipelines around our modules: how they are made, and how they are told a text."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers

from lavi_bridge.text import Text


def pipeline(vision: Any, scheduler: Any, own: Mapping[str, Any] | None = None) -> Any:
    """The family's pipeline around a vision model's modules.

    Args:
        own: text encoders, tokenizers and settings; without, it reads encoded prompts alone.
    """
    kind = getattr(diffusers, vision.pipeline_class)
    backbone = "unet" if vision.backbone_folder == "unet" else "transformer"
    given = {"vae": vision.vae, "scheduler": scheduler, backbone: vision.backbone}
    given |= vision.pipeline_options | dict(own or {})
    asked = inspect.signature(kind.__init__).parameters.items()
    empty = [name for name, p in asked if p.default is p.empty and name not in ("self", *given)]
    return kind(**given, **dict.fromkeys(empty))  # text encoders, tokenizers and the like


def arguments(vision: Any, text: Text, null: Text) -> dict[str, Any]:
    """What hands encoded prompts to that pipeline, by the names that it knows."""
    known = inspect.signature(getattr(diffusers, vision.pipeline_class).__call__).parameters
    found: dict[str, Any] = {}
    for sign, one in (("", text), ("negative_", null)):
        read = vision.reads(one)
        mask = one.mask if read.mask is None else read.mask
        found[f"{sign}prompt_embeds"] = read.hidden
        found[f"{sign}pooled_prompt_embeds"] = read.pooled
        found |= {f"{sign}prompt_attention_mask": mask, f"{sign}prompt_embeds_mask": mask}
        for number, further in enumerate(read.more, 2):
            found[f"{sign}prompt_embeds_{number}"] = further.hidden
            found[f"{sign}prompt_attention_mask_{number}"] = further.mask
    given = {key: value for key, value in found.items() if key in known and value is not None}
    # some pipelines have a default that would contradict
    return given | ({"negative_prompt": None} if "negative_prompt" in known else {})


def default_steps(vision: Any) -> int:
    """Steps that pipeline makes where it is told no number."""
    return int(_default(vision, "num_inference_steps"))


def default_guidance(vision: Any) -> float:
    """The guidance that pipeline has where it is told none; 1 is without."""
    ((name, off),) = vision.pipeline_guidance(1.0).items()
    return float(_default(vision, name) - off + 1)


def _default(vision: Any, name: str) -> Any:
    kind = getattr(diffusers, vision.pipeline_class)
    return inspect.signature(kind.__call__).parameters[name].default
