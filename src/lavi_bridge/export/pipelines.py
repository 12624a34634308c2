"""`pipeline.py` of an exported folder: diffusers' own pipeline, told encoded prompts."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import diffusers
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.bridge.own import NULL, OwnEncoders, own_tokens
from lavi_bridge.files.pretrained import quiet
from lavi_bridge.visions import Vision

TEMPLATES = Path(__file__).parent
MASKS = ("prompt_attention_mask", "prompt_embeds_mask")
"""What pipelines call the mask of a prompt."""
PLAIN: dict[str, Any] = {"use_resolution_binning": False, "num_frames": 1}
"""Where a pipeline has these, it draws the size that is asked for, and one frame."""


def stock(vision: Vision) -> Any:
    """The family's pipeline class."""
    with quiet():  # its module is imported now
        return getattr(diffusers, vision.pipeline_class)


def components(vision: Vision) -> list[str]:
    """The components that the family's pipeline is made of."""
    kind = stock(vision)
    asked = inspect.signature(kind.__init__).parameters.items()
    return [
        name
        for name, p in asked
        if name != "self" and (p.default is p.empty or name in kind._optional_components)
    ]


def encoders(pipeline: Any) -> list[str]:
    """The text encoders and tokenizers that a pipeline has."""
    return [
        name
        for name in components_of(pipeline)
        if name.startswith(("text_encoder", "tokenizer")) and getattr(pipeline, name) is not None
    ]


def components_of(pipeline: Any) -> list[str]:
    """Names of what a pipeline is made of."""
    return [
        name for name in inspect.signature(type(pipeline).__init__).parameters if name != "self"
    ]


def source(bridge: Bridge, form: str, *, servers: bool) -> str:
    """The source of `pipeline.py`."""
    vision, kind = bridge.vision, stock(bridge.vision)
    known = inspect.signature(kind.__call__).parameters
    backbone = vision.backbone_folder
    own = _own_names(bridge)
    parts = [*own, backbone, "vae", "scheduler"]
    absent = [name for name in components(vision) if name not in parts]
    settings = {
        name: vision.pipeline_options.get(name, p.default)
        for name, p in inspect.signature(kind.__init__).parameters.items()
        if name not in ("self", *parts, *absent)
    }
    height, width = vision.size
    defaults = {
        "num_inference_steps": vision.default_steps,
        **vision.pipeline_guidance(vision.default_guidance),
        "height": height,
        "width": width,
        **{name: value for name, value in PLAIN.items() if name in known},
    }
    masks = [name for name in MASKS if name in known and vision.masks]
    names = [Path(side.place.published).name for side in (bridge.language, bridge.vision)]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template("pipeline.py.jinja").render(
        title=" × ".join(names),
        stock=vision.pipeline_class,
        how="custom_pipeline=PLACE, " if servers else "",
        needs=", peft" * (form == "light"),
        id=bridge.id,
        own=_own_source(bridge, environment),
        zeros=bridge.tokens > bridge.padding and not vision.masks,
        order="->".join(
            [*(n for n in own if n.startswith("text")), "prompt_processor", backbone, "vae"]
        ),
        parts=parts,
        absent=absent,
        settings={name: repr(value) for name, value in settings.items()},
        backbone=backbone,
        defaults=defaults,
        negative="negative_prompt" in known,
        negatives="negative_prompt_embeds" in known,
        others=tuple(n for n in known if re.fullmatch(r"(negative_)?prompt_\d", n)),
        many=next(n for n in known if n.startswith("num_") and n.endswith("_per_prompt")),
        pooled=bool(vision.pooled_width),
        mask=masks[0] if masks else "",
    )


def _own_names(bridge: Bridge) -> list[str]:
    """The own encoders and tokenizers that come along."""
    own = bridge.own_encoders
    if own is None:
        return []
    return encoders(own.pipeline) if isinstance(own, OwnEncoders) else ["text_encoder", "tokenizer"]


def _own_source(bridge: Bridge, environment: Environment) -> str:
    """The function that reads prompts with the own encoders; empty where none is read."""
    own, vision = bridge.own_encoders, bridge.vision
    if own is None:
        return ""
    if isinstance(own, OwnEncoders):
        null = any(name.startswith(NULL) for name in own.fields)
        fields = environment.get_template("own_fields.py.jinja")
        return fields.render(fields=own.fields, null=null).rstrip()
    states = environment.get_template("own_states.py.jinja")
    return states.render(tokens=own_tokens(own, vision), masked=vision.masks).rstrip()
