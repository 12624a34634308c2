"""The components of a pipeline folder: how they are loaded, held and asked."""

from __future__ import annotations

import diffusers
import torch
from torch import nn

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.locate import Place
from lavi_bridge.files.pretrained import load_pretrained, loading
from lavi_bridge.files.weights import Fingerprint, fingerprint_of
from lavi_bridge.visions.single import single


def telling(model: nn.Module) -> nn.Parameter:
    """The parameter that tells a model's device and precision.

    diffusers' own properties walk through all modules at every call, for milliseconds; some of its
    models keep certain parameters in float32, and others are held in 8 or 4 bits.
    """
    kept = getattr(model, "_keep_in_fp32_modules", None) or ()
    return next(
        p
        for name, p in model.named_parameters()
        if p.is_floating_point() and not any(k in name for k in kept)
    )


def channels_last(model: nn.Module) -> nn.Module:
    """A model with channels last, which only images have."""
    if any(parameter.ndim == 5 for parameter in model.parameters()):  # of videos
        return model
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def load_part(place: Place, class_name: str | None, dtype: torch.dtype | None) -> nn.Module:
    """Load one component; its config names the class where the family does not."""
    config = place.json("config.json")
    kind = getattr(diffusers, class_name or str(config.get("_class_name")), None)
    if kind is None:
        raise BridgeError(f"'{place.id}': diffusers has no class '{config.get('_class_name')}'")
    if dtype == torch.float16 and config.get("force_upcast"):
        dtype = torch.float32  # this autoencoder overflows in float16
    if dtype is None:
        with loading(f"'{place.id}'"), torch.device("meta"):
            return kind.from_config(config)
    if place.single:
        return single.load_part(place, dtype)
    return load_pretrained(kind, place, f"'{place.id}'", dtype=dtype)


def part_fingerprint(place: Place) -> Fingerprint:
    """16 hex digits that identify the weights of one component, which was loaded from there."""
    if place.single:
        return single.part_fingerprint(place)
    return fingerprint_of(place)
