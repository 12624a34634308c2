"""A bridge on disk: one folder that `Bridge.load` reads without being told anything else.

`bridge.json` (base models with fingerprints, adapter, LoRA, versions, training summary),
`adapter/`, `language_lora/`, `vision_lora/` (PEFT's layout) and `README.md`, the model card.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lavi_bridge.adapters import Adapter
from lavi_bridge.bridge import lora
from lavi_bridge.bridge.card import model_card, stated_licence
from lavi_bridge.bridge.own import OwnEncoders, load_own
from lavi_bridge.bridge.parts import Parts, Side, inject
from lavi_bridge.config import LoRA, Quantize
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import at_home, new_folder
from lavi_bridge.files.locate import SINGLE, Place, locate
from lavi_bridge.files.weights import Fingerprint, earlier
from lavi_bridge.languages import Language, asked, load_language
from lavi_bridge.running.lock import LOCK
from lavi_bridge.version import __version__
from lavi_bridge.visions import load_vision

INDEX = "bridge.json"
FORMAT = 1
ENTRIES = (INDEX, "README.md", "adapter", "language_lora", "vision_lora")
"""What a bridge folder consists of; anything else in it is left alone."""


def write(parts: Parts, summary: dict[str, Any], folder: Path) -> None:
    """Write `folder` whole or not at all; an earlier bridge there is replaced at the end.

    Args:
        summary: how the bridge was trained, for `bridge.json` and the model card.

    Raises:
        BridgeError: `folder` is a file, or holds something else than a bridge.
    """
    if folder.is_file():
        raise BridgeError(f"'{folder}' is a file; give a folder for the bridge")
    kept = record_of(parts, summary)
    others = folder.exists() and any(entry.name != LOCK for entry in folder.iterdir())
    if others and not (folder / INDEX).is_file():
        raise BridgeError(f"'{folder}' holds something else than a bridge; choose another folder")
    with new_folder(folder, own=ENTRIES) as scratch:
        parts.adapter.save(scratch / "adapter")
        for name, side in parts.sides.items():
            if side.lora is not None:
                lora.save(side.trunk, scratch / f"{name}_lora", base=side.place.published)
        text = json.dumps(kept, indent=2, default=str) + "\n"
        (scratch / INDEX).write_text(text, encoding="utf-8")
        (scratch / "README.md").write_text(model_card(kept), encoding="utf-8")


def record_of(parts: Parts, summary: dict[str, Any]) -> dict[str, Any]:
    """What `bridge.json` holds."""
    return {
        "format": FORMAT,
        "id": parts.id,
        **{name: _side(side) for name, side in parts.sides.items()},
        **({} if parts.own is None else {"own": {"fingerprint": parts.own.fingerprint}}),
        "adapter": parts.adapter.kind,
        "tokens": parts.tokens,
        "padding": parts.padding,
        "limit": parts.limit,
        "masked": parts.vision.masks,
        "versions": {"lavi-bridge": __version__}
        | {name: version(name) for name in ("torch", "diffusers", "transformers", "peft")},
        "parameters": {n: sum(p.numel() for p in part) for n, part in parts.trained().items()},
        "training": summary,
    } | asked.record(parts.language)


def read(
    folder: str | Path,
    *,
    language: str | Path | None,
    vision: str | Path | None,
    dtype: torch.dtype,
    quantize: Quantize,
    quantize_vision: Quantize,
    device: torch.device,
    trust_remote_code: bool = False,
) -> tuple[Parts, dict[str, Any]]:
    """Read a bridge and its base models; return its parts and how it was trained.

    Raises:
        BridgeError: see `Bridge.load`.
    """
    place, record = opened(folder)
    if not place.local:
        place.file("config.json")  # the Hub counts downloads by requests for it
    bases = _base(place, record, "language", language), _base(place, record, "vision", vision)
    image_model = load_vision(bases[1], dtype=dtype, quantize=quantize_vision, device=device)
    if record["language"].get("family") == OwnEncoders.__name__:
        text_model = load_own(image_model, dtype=dtype, place=bases[0])
    else:
        text_model = load_language(
            bases[0],
            dtype=dtype,
            quantize=quantize,
            device=device,
            trust_remote_code=trust_remote_code,
        )
        try:
            asked.ask_again(text_model, record)
        except BridgeError as error:
            raise BridgeError(f"the {INDEX} of '{place.id}': {error}") from error
    adapter = Adapter.load(place / "adapter")
    own = load_own(image_model, dtype=dtype) if adapter.needs_own else None
    if own is not None and (noted := record.get("own", {}).get("fingerprint")) != own.fingerprint:
        raise BridgeError(
            f"'{place.id}' was trained beside another text encoder: that of '{bases[1].id}' has "
            f"fingerprint {own.fingerprint}, the bridge needs {noted}"
        )
    parts = Parts(text_model, image_model, adapter, _limit(record, place), own)
    for name, side in parts.sides.items():
        if (noted := record[name]["fingerprint"]) not in (
            side.fingerprint,
            earlier(side.fingerprint),
        ):
            raise BridgeError(
                f"'{place.id}' was trained on another {name} model: '{side.place.id}' has "
                f"fingerprint {side.fingerprint}, the bridge needs {noted} "
                f"('{record[name]['id']}')"
            )
        side.fingerprint = Fingerprint(noted)  # the bridge's id is made of it
        if spec := record[name]["lora"]:
            inject(side, LoRA(**spec))
            lora.load(side.trunk, place / f"{name}_lora")
    lengths = record["tokens"], record.get("padding", record["tokens"]), record["masked"]
    if (parts.tokens, parts.padding, parts.vision.masks) != lengths:
        raise BridgeError(
            f"'{place.id}' was trained on {record['tokens']} tokens, but these base models make it "
            f"{parts.tokens}: is the text encoder's config missing from '{bases[1].id}'?"
        )
    if parts.id != record["id"]:
        raise BridgeError(f"the weights in '{place.id}' are not those of bridge {record['id']}")
    return parts, record["training"]


def opened(folder: str | Path) -> tuple[Place, dict[str, Any]]:
    """Where a bridge is, and its record; neither weights nor base models are read.

    Raises:
        BridgeError: there is no bridge, or its record is damaged or of another format.
    """
    place = find_bridge(folder)
    record = place.json(INDEX)
    if record.get("format") != FORMAT:
        raise BridgeError(
            f"'{place.id}' has format {record.get('format')}; this version reads {FORMAT}"
        )
    if missing := [
        k for k in ("id", "language", "vision", "tokens", "training") if k not in record
    ]:
        raise BridgeError(f"the {INDEX} of '{place.id}' lacks '{missing[0]}'")
    return place, record


def _limit(record: dict[str, Any], place: Place) -> int | None:
    """Tokens that were asked for, if any were."""
    limit = record.get("limit")
    if limit is None or (isinstance(limit, int) and limit > 0):
        return limit
    raise BridgeError(f"the {INDEX} of '{place.id}' has a limit of {limit!r} tokens")


def find_bridge(folder: str | Path) -> Place:
    """Where a bridge is: in a folder, in a run's, or on the Hub; its weights are not read.

    Raises:
        BridgeError: there is none.
    """
    path = at_home(folder)
    parts = path.parts
    relative = not path.is_absolute()
    if relative and len(parts) > 1 and not path.exists() and Path(parts[0]).is_dir():
        # runs/typo has the form of a Hub id, but nobody should wait for the Hub to deny it
        raise BridgeError(f"no folder '{folder}', though there is a folder '{parts[0]}'")
    place = locate(folder)
    if place.file(INDEX) is None and (place / "bridge").file(INDEX) is not None:
        place = place / "bridge"  # the folder of a training run
    if place.file(INDEX) is None:
        published = place.file("lora_vis.pt") is not None
        hint = "; it is a published checkpoint: `lavi-bridge convert`" if published else ""
        inside = sorted(Path(place.root).glob("*/bridge.json")) if place.local else []
        inside += sorted(Path(place.root).glob("*/bridge/bridge.json")) if place.local else []
        if place.local and place.file("metrics.jsonl") is not None:
            hint = "; its run has not come to one yet: the same command goes on"
        if inside:
            hint = "; there are some inside: " + ", ".join(f"'{p.parent}'" for p in inside)
        raise BridgeError(f"'{place.id}' is no bridge: it has no {INDEX}{hint}")
    return place


def is_pipeline(folder: str | Path) -> bool:
    """Whether this is a whole image model rather than a bridge."""
    path = at_home(folder)
    if path.suffix == SINGLE and path.is_file():
        return True
    local = path.is_dir() or str(folder).startswith("zoo:")
    return local and locate(folder).file("model_index.json") is not None


def _side(side: Side) -> dict[str, Any]:
    return {
        "id": side.place.id,
        "revision": _commit(side) or side.place.revision,
        "family": type(side).__name__,
        "fingerprint": side.fingerprint,
        "licence": stated_licence(side.place),
        "lora": asdict(side.lora) if side.lora else None,
    }


def _commit(side: Side) -> str | None:
    """The Hub commit of a base model, so that it can be had again when its branch has moved."""
    alone = isinstance(side, Language) and not isinstance(side, OwnEncoders)
    index = "config.json" if alone else "model_index.json"
    return side.place.commit(index)


def _base(place: Place, record: dict[str, Any], name: str, given: str | Path | None) -> Place:
    """Where a base model is: where the caller says, or where it was in training."""
    try:
        if given is not None:
            return locate(given)
        found = locate(record[name]["id"])
        return found if found.local else replace(found, revision=record[name]["revision"])
    except BridgeError as error:
        raise BridgeError(
            f"'{place.id}' needs its {name} model, but {error}; if it has moved, pass {name}=… "
            f"(on the command line --{name} FOLDER)"
        ) from error
