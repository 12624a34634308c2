"""A single file taken for the folder that it would be: its configs, its parts, its fingerprint."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import replace
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
BESIDE = "ae.safetensors"
"""The autoencoder's file, where a model is published as two (FLUX.1)."""


def opened(place: Place) -> Place:
    """Look into a single file; the place then answers for the folder's JSON files.

    Raises:
        BridgeError: it is not a whole image model of a family that is known, or is quantized.
    """
    checkpoint = Checkpoint.read(Path(place.root, place.single))
    layout, front = recognise(checkpoint)
    if scaled := [name for name in checkpoint.shapes if any(s in name for s in SCALED)]:
        raise BridgeError(
            f"'{place.id}' is quantized ('{scaled[0]}'): give its file of 16 bits, or of plain fp8"
        )
    shapes = checkpoint.part(front)
    files = {
        "model_index.json": {"_class_name": layout.pipeline},
        f"{layout.folder}/config.json": layout.backbone(shapes) | _noted_size(checkpoint),
        "scheduler/scheduler_config.json": layout.scheduler(checkpoint, shapes),
    }
    vae, vae_front = _autoencoder(place, checkpoint)
    files["vae/config.json"] = configs.autoencoder(vae.part(vae_front)) | layout.vae
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
    return model


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
        if f"{front}decoder.conv_in.weight" in checkpoint.shapes:
            return checkpoint, front
    beside = checkpoint.path.with_name(BESIDE)
    if beside.is_file() and "decoder.conv_in.weight" in (found := Checkpoint.read(beside)).shapes:
        return found, ""
    raise BridgeError(
        f"'{checkpoint.path}' has no autoencoder: put the model's own beside it, as {BESIDE}, or "
        "give a file that has all"
    )
