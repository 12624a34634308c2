"""What can be exported in which form, and why not."""

from __future__ import annotations

from typing import Literal, get_args

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.bridge.own import OwnEncoders
from lavi_bridge.export import comfyui
from lavi_bridge.files.locate import PIP, ZOO_PREFIX, Place
from lavi_bridge.visions.base import VISIONS, Vision

Form = Literal["light", "merged", "stock", "comfyui"]
FORMS: tuple[str, ...] = get_args(Form)


def refusal(bridge: Bridge, form: str) -> str | None:
    """Why a bridge has no export in this form; None where it has one."""
    kind, name = bridge.adapter.kind, type(bridge.vision).__name__
    if isinstance(bridge.language, OwnEncoders) or kind == "identity":
        return "it is an image model with its own text encoder: plain diffusers draws with it"
    if bridge.stacked:
        return "other people's LoRA is loaded, which is not the bridge's: unload_lora() first"
    if bridge.adapter.timed:
        return (
            f"the '{kind}' adapter reads a prompt anew at every step, and pipelines take features "
            "that stay"
        )
    if form == "comfyui":
        return comfyui.refusal(bridge)
    if form == "stock":
        return _half_alone(bridge)
    if own_form(bridge.vision):
        return f"diffusers' {bridge.vision.pipeline_class} takes text in a form of its own ({name})"
    if form == "light":
        return _not_published(bridge)
    return None


def own_form(vision: Vision) -> bool:
    """Whether the family's pipeline is handed text otherwise than by names and tensors."""
    cls = type(vision)
    named = cls.reads is Vision.reads and cls.pipeline_text is Vision.pipeline_text
    return not named or bool(vision.more_widths)


def _half_alone(bridge: Bridge) -> str | None:
    """Why the text half cannot stand where a text encoder stood."""
    vision, kind = bridge.vision, bridge.adapter.kind
    if bridge.adapter.needs_own:
        return f"the '{kind}' adapter reads the own encoder, too: take form merged or light"
    if vision.stock_text is None:
        why = "its own template, or several encoders"
        if vision.pooled_width:
            why = "several encoders, which give a pooled vector, too"
        return (
            f"{vision.pipeline_class} reads prompts through {why}; take form merged or light "
            f"(stock: {', '.join(n for n in VISIONS if VISIONS[n].stock_text is not None)})"
        )
    if vision.masks and not bridge.adapter.per_token:
        return f"{vision.pipeline_class} masks one token a word, the '{kind}' adapter gives others"
    if not vision.masks and bridge.tokens > bridge.padding:
        return (
            f"{vision.pipeline_class} masks no padding, which prompts of more than "
            f"{bridge.padding} tokens need: take form merged or light"
        )
    if bridge.language.template is not None:
        return "its tokenizer reads a prompt without the template: take form merged or light"
    return None


def _not_published(bridge: Bridge) -> str | None:
    """Why others cannot fetch the base models."""
    for name, place in (("language", bridge.language.place), ("vision", bridge.vision.place)):
        if place.local and not bundled(place):
            return (
                f"its {name} model '{place.id}' is on this machine alone: say where it was "
                f"published (--{name} OWNER/NAME), or take form merged"
            )
    return None


def bundled(place: Place) -> bool:
    """Whether a model came with a package, so that its weights are copied."""
    return place.id.startswith((ZOO_PREFIX, PIP))
