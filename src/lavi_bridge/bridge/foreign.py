"""LoRA files that others made: read, and their names turned into those of an image model's layers.

A layer may be called as diffusers does (`unet.` or `transformer.` before its name, or nothing), as
PEFT does (`base_model.model.` before it), or as kohya's scripts do (`lora_unet_`, and underscores
for dots): all of these are looked up among the model's own. What the models' first code called
otherwise (`input_blocks`, `double_blocks`) is left to diffusers, which converts most of it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
from peft.tuners.lora import LoraLayer
from peft.utils.other import get_pattern_key
from safetensors import safe_open
from torch import Tensor, nn

from lavi_bridge.bridge import lora
from lavi_bridge.errors import BridgeError, first_line, in_a_line
from lavi_bridge.files.atomic import read_safetensors
from lavi_bridge.files.locate import Place, locate
from lavi_bridge.visions import Vision

FILES = (lora.WEIGHTS, "pytorch_lora_weights.safetensors")
"""What PEFT and diffusers call the file in a folder."""
HEADER = "lora_adapter_metadata"
"""Where diffusers notes PEFT's config in the file itself."""
ENCODER = re.compile(r"(base_model\.model\.)?(lora_te\d?_|text_encoders?(_\d)?\.|te\d?\.)")
"""How the names of a text encoder's layers begin."""
BEFORE = re.compile(
    r"((base_model\.model|(model\.)?diffusion_model|unet|transformer)\.|lora_(unet|transformer)_)*"
)
"""What may stand before a layer's name."""
FACTOR = re.compile(
    r"(?P<layer>.+?)(\.lora_(?P<peft>A|B|down|up)(\.[\w-]+)?"
    r"|([._]lora|\.lora_linear_layer)\.(?P<older>down|up))\.weight"
)
ALPHA = ".alpha"
LARGEST_ALPHA = torch.finfo(torch.float32).max
CONVERSION = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    AssertionError,
)
"""How diffusers says that it knows no such names."""
OTHERS = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "oft_": "OFT",
    "lora_mid": "LoRA with a third factor",
    "lora_embedding_": "LoRA of embeddings",
    ".bias": "LoRA with biases",
    ".diff": "whole differences of weights",
}
"""By a part of a key's name, what the file holds that is no plain LoRA."""


@dataclass
class Factors:
    """What is added to one layer's weight: up · down, in float32."""

    down: Tensor  # (rank, inputs[, kernel])
    up: Tensor  # (outputs, rank[, 1, 1])
    keys: list[str] = field(default_factory=list)
    """Their names in the file: down, up, and perhaps alpha."""


@dataclass(frozen=True)
class LoRAFile:
    """A LoRA as somebody published it."""

    name: str
    """Of the file or its folder, or a Hub id: nothing of this machine."""
    digest: str
    """12 hex digits of its content."""
    tensors: dict[str, Tensor]
    """Those of the image model, by their names in the file."""
    left_out: int
    """How many more there are, of text encoders."""
    config: dict[str, Any]
    """PEFT's settings, where they come with it."""

    @classmethod
    def read(cls, source: str | Path) -> LoRAFile:
        """Read a safetensors file, or that of a folder or a Hub repository.

        Raises:
            BridgeError: there is none, or it is damaged, a pickle, or no plain LoRA; a tensor has
                no values, some that are no numbers, or too few dimensions; or a setting is of
                another type than PEFT writes.
        """
        place = locate(source)
        path = _file(place)
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256")
        every = read_safetensors(path)
        beside = path.with_name(lora.CONFIG)
        if path.name == lora.WEIGHTS and (place.file(lora.CONFIG) or beside.is_file()):
            config = _checked(_object(beside.read_bytes(), str(beside)), str(beside))
            digest.update(json.dumps(config, sort_keys=True).encode())
        else:
            config = _header(path)
        tensors = {key: tensor for key, tensor in every.items() if not ENCODER.match(key)}
        name = place.single or (Path(place.id).name if place.local else place.id)
        if odd := [k for k in tensors if not FACTOR.fullmatch(k) and not k.endswith(ALPHA)]:
            kind = next((kind for part, kind in OTHERS.items() if part in odd[0]), "something else")
            raise BridgeError(
                f"'{name}' is no plain LoRA, the one kind that is read: {len(odd)} keys, such as "
                f"'{odd[0]}', are {kind}"
            )
        if not tensors:
            raise BridgeError(f"'{name}' holds nothing for an image model: {len(every)} keys")
        for key, tensor in tensors.items():
            if fault := _fault(key, tensor):
                raise BridgeError(f"'{name}': '{key}' {fault}")
        return cls(name, digest.hexdigest()[:12], tensors, len(every) - len(tensors), config)

    def factors(self, vision: Vision) -> dict[str, Factors]:
        """What every layer of an image model gets, by the layer's name there.

        Raises:
            BridgeError: something is of no layer there: how many keys are, and the first of them.
        """
        found, names = self._scaled(), _spellings(vision.backbone)
        if all(_own(layer, names) for layer in found):
            return self._by_own_name(found.items(), names)
        why = ""
        try:
            converted, came = _converted(vision, found, names)
        except CONVERSION as error:
            converted, came, why = {}, set(), f" (diffusers: {in_a_line(error)[:120]})"
        lost = [f for f in found.values() if not came.issuperset(f.keys[:2])]
        if not came:  # then it is not in one of the names that diffusers converts
            lost = [f for layer, f in found.items() if not _own(layer, names)]
        if lost:
            keys = [key for factors in lost for key in factors.keys]
            raise BridgeError(
                f"{len(keys)} of {len(self.tensors)} keys of '{self.name}' are of no layer of "
                f"'{vision.place.id}', such as '{keys[0]}': is it of another image model?{why}"
            )
        return self._by_own_name(converted.items(), names)

    def _scaled(self) -> dict[str, Factors]:
        """The factors by their layers' names in the file; alpha is multiplied into `up`."""
        parts: dict[str, dict[str, str]] = {}
        for key in self.tensors:
            matched = FACTOR.fullmatch(key)
            layer = matched["layer"] if matched else key.removesuffix(ALPHA)
            part = "alpha"
            if matched:
                part = "down" if (matched["peft"] or matched["older"]) in ("A", "down") else "up"
            if part in parts.setdefault(layer, {}):
                raise BridgeError(f"'{self.name}' holds '{key}' twice, under two names")
            parts[layer][part] = key
        found = {}
        for layer, keys in parts.items():
            if missing := [part for part in ("down", "up") if part not in keys]:
                there = next(iter(keys.values()))
                raise BridgeError(f"'{self.name}' has '{there}', but no {missing[0]} beside it")
            down, up = (self.tensors[keys[part]].float() for part in ("down", "up"))
            alpha = float(self.tensors[keys["alpha"]]) if "alpha" in keys else None
            scale = self._scale(layer, len(down), alpha)
            if not math.isfinite(scale) or not (up := up * scale).isfinite().all():
                raise BridgeError(f"'{self.name}': '{keys['up']}' is infinite with its alpha")
            ordered = [keys[part] for part in ("down", "up", "alpha") if part in keys]
            found[layer] = Factors(down, up, ordered)
        return found

    def _scale(self, layer: str, rank: int, alpha: float | None) -> float:
        """What a layer's product is multiplied by: 1 where nothing is said."""
        if alpha is None:
            name, special = _bare(layer), self.config.get("alpha_pattern") or {}
            key = get_pattern_key(list(special), name)
            stated = self.config.get("lora_alpha")
            alpha = special.get(key, rank if stated is None else stated)
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def _by_own_name(
        self, found: Iterable[tuple[str, Factors]], names: dict[str, str]
    ) -> dict[str, Factors]:
        landed: dict[str, Factors] = {}
        for layer, factors in found:
            own = _own(layer, names)
            assert own is not None
            if own in landed:
                raise BridgeError(f"'{self.name}' holds layer '{own}' twice, under two names")
            landed[own] = Factors(factors.down.detach(), factors.up.detach(), factors.keys)
        return landed


def _file(place: Place) -> Path:
    if place.single:
        return Path(place.root, place.single)
    found = [path for name in FILES if (path := place.file(name))]
    if not found and place.local:
        found = list(Path(place.root, place.subfolder).glob("*.safetensors"))
        found = found if len(found) == 1 else []
    if not found:
        raise BridgeError(f"'{place.id}' has no LoRA file: neither {FILES[0]} nor {FILES[1]}")
    return found[0]


def _fault(key: str, tensor: Tensor) -> str | None:
    """What is wrong with a tensor of the file, whatever the model."""
    if not tensor.is_floating_point() and (tensor.is_complex() or not key.endswith(ALPHA)):
        return f"holds {str(tensor.dtype).removeprefix('torch.')}, not weights"
    if not tensor.numel():
        return f"has no values: its shape is {tuple(tensor.shape)}"
    if key.endswith(ALPHA):
        if tensor.numel() > 1:
            return f"has {tensor.numel()} values; alpha is one"
    elif tensor.ndim < 2:
        return f"has {tensor.ndim} dimensions; a factor of a layer has 2 or more"
    return None if tensor.float().isfinite().all() else "holds values that are no finite numbers"


def _header(path: Path) -> dict[str, Any]:
    """PEFT's settings of the image model, as diffusers notes them in a file; nothing if not.

    Raises:
        BridgeError: they are damaged, or of other types than PEFT writes.
    """
    with safe_open(path, "pt") as content:
        text = (content.metadata() or {}).get(HEADER, "{}")
    what, sides = f"'{HEADER}' in the header of {path}", re.compile(r"(unet|transformer)\.")
    noted = _object(text, what)
    return _checked(
        {sides.sub("", k, count=1): v for k, v in noted.items() if sides.match(k)}, what
    )


def _object(text: str | bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BridgeError(f"{what} is not valid JSON: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise BridgeError(f"{what} is no JSON object, but {_short(found)}")
    return found


def _checked(config: dict[str, Any], what: str) -> dict[str, Any]:
    """Settings of which those that scales are made of have their types, or are null."""
    special = config.get("alpha_pattern")
    if special is None:
        special = {}
    if not isinstance(special, dict):
        raise BridgeError(f"{what}: 'alpha_pattern' is no JSON object, but {_short(special)}")
    for pattern, value in special.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise BridgeError(
                f"{what}: 'alpha_pattern' has '{pattern}', which is no pattern: {error}"
            ) from error
        if value is None:
            raise BridgeError(f"{what}: 'alpha_pattern' has no number for '{pattern}'")
    for key, value in ({"lora_alpha": config.get("lora_alpha")} | special).items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and abs(value) <= LARGEST_ALPHA):
            raise BridgeError(f"{what}: '{key}' is no finite number, but {_short(value)}")
    if not isinstance(config.get("use_rslora"), bool | None):
        told = _short(config["use_rslora"])
        raise BridgeError(f"{what}: 'use_rslora' is neither true nor false, but {told}")
    return config


def _short(value: Any) -> str:
    return json.dumps(value)[:60]


def _spellings(model: nn.Module) -> dict[str, str]:
    """The layers that LoRA can go into, by their names and by the same with underscores for dots.

    A layer that has LoRA counts under the name that it had without.
    """
    found: dict[str, str] = {}
    around = ""
    for name, module in model.named_modules():
        if around and name.startswith(around):
            continue
        base = module
        if isinstance(module, LoraLayer):
            around, base = f"{name}.", module.get_base_layer()
        if isinstance(base, nn.Linear | nn.modules.conv._ConvNd):
            found[name] = found[name.replace(".", "_")] = name
    return found


def _bare(layer: str) -> str:
    """A layer's name without what stands before it, and without attention's old processors."""
    return BEFORE.sub("", layer, count=1).replace(".processor.", ".")


def _own(layer: str, names: dict[str, str]) -> str | None:
    """The model's name for a layer; attention's output was once called without its number."""
    bare = _bare(layer)
    return names.get(bare) or names.get(f"{bare}.0")


def _converted(
    vision: Vision, found: dict[str, Factors], names: dict[str, str]
) -> tuple[dict[str, Factors], set[str]]:
    """What diffusers' pipeline makes of names that are not the model's own, as far as it lands;
    and the keys that came into it, which gradients tell, whatever was split or merged."""
    kind = getattr(diffusers, vision.pipeline_class)
    if not hasattr(kind, "lora_state_dict"):
        return {}, set()
    given = {
        key: tensor.requires_grad_()
        for factors in found.values()
        for key, tensor in zip(factors.keys, (factors.down, factors.up), strict=False)
    }
    with torch.enable_grad():
        answer = kind.lora_state_dict(dict(given), unet_config=vision.backbone.config)
        halves: dict[str, dict[str, Tensor]] = {}
        for key, tensor in (answer[0] if isinstance(answer, tuple) else answer).items():
            matched = FACTOR.fullmatch(key)
            if matched and _own(matched["layer"], names):
                down = (matched["peft"] or matched["older"]) in ("A", "down")
                halves.setdefault(matched["layer"], {})["down" if down else "up"] = tensor
        whole = {
            layer: Factors(parts["down"], parts["up"])
            for layer, parts in halves.items()
            if len(parts) == 2
        }
        if not whole:
            return {}, set()
        total = torch.stack([f.down.sum() + f.up.sum() for f in whole.values()]).sum()
        used = torch.autograd.grad(total, list(given.values()), allow_unused=True)
    return whole, {key for key, one in zip(given, used, strict=True) if one is not None}
