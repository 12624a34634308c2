"""A single file taken for the folder that it would be: its configs, its parts, its fingerprint."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import replace
from math import prod
from pathlib import Path

import diffusers
import torch
from torch import nn

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.locate import Place
from lavi_bridge.files.pretrained import loading, quiet
from lavi_bridge.files.weights import Fingerprint, fingerprint_of_tensors
from lavi_bridge.visions.single import configs
from lavi_bridge.visions.single.checkpoint import Checkpoint
from lavi_bridge.visions.single.layouts import VAE_FRONTS, recognise

SCALED = (".scale_weight", ".weight_scale", "scaled_fp8", ".absmax", ".quant_state")
"""In names beside weights of 8 or 4 bits that are nothing without them."""
LDM_SIGN = "decoder.mid.block_1.conv1.weight"
"""In an autoencoder as it was first published; diffusers names it otherwise."""
UNREAD = ("text_encoders.", "cond_stage_model.", "conditioner.")
"""Begin the names of text encoders, which are left where they are."""
BESIDE = "ae.safetensors"
"""The autoencoder's file, where a model is published as two (FLUX.1)."""


def opened(place: Place) -> Place:
    """Look into a single file; the place then answers for the folder's JSON files.

    Raises:
        BridgeError: it is not a whole image model of a family that is known, or is quantized.
    """
    checkpoint = Checkpoint.read(Path(place.root, place.single))
    layout, front = recognise(checkpoint)
    read = [name for name in checkpoint.shapes if not name.startswith(UNREAD)]
    if scaled := [name for name in read if any(sign in name for sign in SCALED)]:
        raise BridgeError(
            f"'{place.id}' is quantized ('{scaled[0]}'): give its file of 16 bits, or of plain fp8"
        )
    shapes = checkpoint.part(front)
    vae, vae_front = _autoencoder(place, checkpoint)
    try:
        files = {
            "model_index.json": {"_class_name": layout.pipeline},
            f"{layout.folder}/config.json": layout.backbone(shapes) | _noted_size(checkpoint),
            "scheduler/scheduler_config.json": layout.scheduler(checkpoint, shapes),
            "vae/config.json": configs.autoencoder(vae.part(vae_front)) | layout.vae,
        }
    except KeyError as error:
        raise BridgeError(
            f"'{place.id}' lacks {error}, which a {layout.name} in the layout first published has"
        ) from error
    return replace(place, configs=files)


def load_part(place: Place, dtype: torch.dtype) -> nn.Module:
    """Load the backbone or the autoencoder: `place / "unet"`.

    Raises:
        BridgeError: the file lacks weights of it, or has others.
    """
    config, what = place.json("config.json"), f"'{place.id}'"
    checkpoint, front = _holder(place)
    kind = getattr(diffusers, config["_class_name"])
    with tempfile.TemporaryDirectory() as folder, loading(what), quiet():
        Path(folder, "config.json").write_text(json.dumps(config), encoding="utf-8")
        tensors = checkpoint.tensors(front, dtype)
        try:
            model: nn.Module = kind.from_single_file(tensors, config=folder, dtype=dtype)
        except NotImplementedError as error:  # some parameters stayed without data
            raise ValueError("the file lacks some of the model's weights") from error
    _check_others(place, checkpoint, front, model)
    return model


def _check_others(place: Place, checkpoint: Checkpoint, front: str, model: nn.Module) -> None:
    """Refuse a backbone with more in its file than the model has, which diffusers leaves out.

    Its own layout keeps every number, so they can be counted. An autoencoder may have a
    discriminator beside it.

    Raises:
        BridgeError: there is more.
    """
    if place.subfolder == "vae":
        return
    left = (*UNREAD, *VAE_FRONTS) if not front else ()
    shapes = {n: s for n, s in checkpoint.part(front).items() if not n.startswith(left)}
    more = sum(map(prod, shapes.values())) - sum(p.numel() for p in model.state_dict().values())
    if more > 0:
        raise BridgeError(
            f"'{place.id}' has {more:,} numbers more than the {type(model).__name__} that it is "
            "taken for: it is a variant that is not known as one file; give the model's folder"
        )


def part_fingerprint(place: Place) -> Fingerprint:
    """Identify the weights of a part; how its names begin, and what else is in the file, is left
    out."""
    checkpoint, front = _holder(place)
    return fingerprint_of_tensors(checkpoint.path, front)


def _noted_size(checkpoint: Checkpoint) -> dict[str, int]:
    """The side of the pictures it was trained on, in latents, where a trainer noted it."""
    found = re.fullmatch(r"(\d+)x\1", checkpoint.notes.get("modelspec.resolution", ""))
    return {"sample_size": int(found[1]) // 8} if found else {}


def _holder(place: Place) -> tuple[Checkpoint, str]:
    """The file that has a part, and how the names of its tensors begin."""
    checkpoint = Checkpoint.read(Path(place.root, place.single))
    if place.subfolder == "vae":
        return _autoencoder(place, checkpoint)
    return checkpoint, recognise(checkpoint)[1]


def _autoencoder(place: Place, checkpoint: Checkpoint) -> tuple[Checkpoint, str]:
    """In the file itself, or in the one beside it.

    Raises:
        BridgeError: there is none.
    """
    for front in VAE_FRONTS:
        if f"{front}{LDM_SIGN}" in checkpoint.shapes:
            return checkpoint, front
    beside = checkpoint.path.with_name(BESIDE)
    if beside.is_file() and LDM_SIGN in (found := Checkpoint.read(beside)).shapes:
        return found, ""
    raise BridgeError(
        f"'{checkpoint.path}' has no autoencoder: put the model's own beside it, as {BESIDE}, or "
        "give a file that has all"
    )
