"""A bridge between two bridges of one pair: what each has learned, in parts that add up to one.

An adapter's weights are taken linearly. What LoRA adds is a product, and a mean of factors is no
mean of products; so the factors are stacked, to a LoRA of both ranks together:
`[(1 - t) B_a, t B_b] [A_a; A_b] = (1 - t) B_a A_a + t B_b A_b`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lavi_bridge.adapters import Adapter
from lavi_bridge.bridge import folder, lora
from lavi_bridge.bridge.parts import Parts, Side
from lavi_bridge.errors import BridgeError
from lavi_bridge.running import claims

FREE = ("id", "limit", "versions", "training", "parameters", "files")
"""What two bridges of one pair may differ in; the limit is in their tokens already."""
FREE_OF_A_SIDE = ("id", "revision", "licence")
"""The same of a base model: it may have moved, and what its card says may have changed."""


def read(
    a: str | Path,
    b: str | Path,
    t: float,
    *,
    language: str | Path | None,
    vision: str | Path | None,
    dtype: torch.dtype,
    trust_remote_code: bool = False,
) -> tuple[Parts, dict[str, Any]]:
    """Read two bridges, one after the other; return what lies between them, and what that is.

    Raises:
        BridgeError: see `Bridge.interpolated`.
    """
    if not 0 <= t <= 1:
        raise BridgeError(f"between two bridges lie 0 to 1, not {t}")
    _check(a, b)
    options: dict[str, Any] = {
        "language": language,
        "vision": vision,
        "dtype": dtype,
        "quantize": "none",
        "quantize_vision": "none",
        "device": torch.device("cpu"),
        "trust_remote_code": trust_remote_code,
    }
    other, _ = folder.read(b, **options)
    theirs, ids = _weights(other), [other.id]
    del other  # one pair of base models at a time
    parts, _ = folder.read(a, **options)
    ids.insert(0, parts.id)
    with torch.no_grad():
        for name, tensor in parts.adapter.state_dict().items():
            tensor.lerp_(theirs["adapter"][name], t)
        for name, side in parts.sides.items():
            _stack(side, theirs[name], t)
    return parts, {"interpolated_from": ids[0], "interpolated_to": ids[1], "interpolated_at": t}


def _check(a: str | Path, b: str | Path) -> None:
    """Refuse two bridges between which nothing lies; no base model is read."""
    settings = []
    for given in (a, b):
        place, record = folder.opened(given)
        adapter = Adapter.load(place / "adapter")
        widths = [adapter.width_in, adapter.width_out, adapter.inner, adapter.width_pooled]
        widths += adapter.widths_more
        about = {"padding": record["tokens"]} | record  # the first bridges had no padding noted
        about |= {name: _of_a_side(record[name]) for name in ("language", "vision")}
        settings.append(about | {"adapter": adapter.kind, "widths of the adapter": widths})
    changed = claims.difference(*settings, apart_from=FREE)
    if changed:
        raise BridgeError(
            f"nothing lies between '{a}' and '{b}', which are not of one kind: {changed.key} is "
            f"{changed.there} in the first, {changed.here} in the second"
        )


def _of_a_side(record: dict[str, Any]) -> dict[str, Any]:
    """What must be equal of a base model; ranks and dropout need not be."""
    about = {key: value for key, value in record.items() if key not in FREE_OF_A_SIDE}
    return about | {"lora": about["lora"] and about["lora"]["targets"]}


def _weights(parts: Parts) -> dict[str, dict[str, Any]]:
    """The adapter's tensors by name, and the factors (down, up) of either side's layers."""
    found: dict[str, dict[str, Any]] = {"adapter": parts.adapter.state_dict()}
    for name, side in parts.sides.items():
        found[name] = {layer: _factors(one) for layer, one in lora.layers(side.trunk).items()}
    return found


def _factors(layer: Any) -> tuple[Any, Any]:
    return layer.lora_A[lora.NAME], layer.lora_B[lora.NAME]


def _stack(side: Side, others: dict[str, tuple[Any, Any]], t: float) -> None:
    """Give every layer the factors of both, and note the new rank wherever it is written."""
    if side.lora is None:
        return
    rank = side.lora.rank + len(next(iter(others.values()))[0].weight)
    lora.check_rank(side.trunk, rank, name=f"'{side.place.id}'")
    for name, layer in lora.layers(side.trunk).items():
        (down, up), (other_down, other_up) = _factors(layer), others[name]
        down.weight = nn.Parameter(torch.cat([down.weight, other_down.weight]))
        up.weight = nn.Parameter(torch.cat([(1 - t) * up.weight, t * other_up.weight], dim=1))
        linear = isinstance(down, nn.Linear)  # else a convolution
        setattr(down, "out_features" if linear else "out_channels", rank)
        setattr(up, "in_features" if linear else "in_channels", rank)
        layer.r[lora.NAME] = layer.lora_alpha[lora.NAME] = rank
    config = side.trunk.peft_config[lora.NAME]
    config.r = config.lora_alpha = rank
    side.lora = replace(side.lora, rank=rank)
