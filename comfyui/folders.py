"""Folders that `lavi-bridge export --form comfyui` wrote: where they are, and what they say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from .allowed import refusal

INDEX, FORM, TEXT = "bridge.json", "comfyui", "text"
KIND = "lavi_bridges"
"""The folder among ComfyUI's models; `extra_model_paths.yaml` may name more of the kind."""
Places = Callable[[], Iterable[str | Path]]


class BridgeError(ValueError):
    """Bad input, described in one line."""


@dataclass(frozen=True)
class Folder:
    """What a folder says of itself."""

    path: Path
    id: str
    """Of the bridge: 12 hex digits."""
    pipeline: str
    """diffusers' pipeline of the image model that it was trained on."""
    family: str
    """How ComfyUI names that model's layers: `unet` or `pixart`."""
    width: int
    """Of the text that the image model reads."""
    pooled: int
    """Width of a pooled vector that it reads beside; 0 for none."""
    layers: int
    """Of the image model that have LoRA."""
    transformers: str
    """Its version where the folder was written."""


def places() -> list[str]:
    """ComfyUI's folders for bridges."""
    known = import_module("folder_paths")
    known.add_model_folder_path(KIND, str(Path(known.models_dir) / KIND))
    return list(known.get_folder_paths(KIND))


def found(places: Places) -> dict[str, Path]:
    """The bridges in these folders and one level below, by name.

    Damaged ones are among them, so that choosing them says what is wrong.
    """
    names: dict[str, Path] = {}
    for place in map(Path, places()):
        for index in sorted([*place.glob(f"*/{INDEX}"), *place.glob(f"*/*/{INDEX}")]):
            if _ours(index):
                names.setdefault(index.parent.relative_to(place).as_posix(), index.parent)
    return names


def _ours(index: Path) -> bool:
    """Whether it is of this form, as far as can be told."""
    try:
        text = index.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    try:
        return bool(json.loads(text)["export"]["form"] == FORM)
    except (ValueError, KeyError, TypeError):
        return f'"form": "{FORM}"' in text


def chosen(name: str, places: Places) -> Folder:
    """The bridge of this name.

    Raises:
        BridgeError: there is none, or its folder is damaged.
    """
    names = found(places)
    if name not in names:
        known = ", ".join(names) or "none"
        where = ", ".join(f"'{place}'" for place in places())
        raise BridgeError(f"no bridge '{name}' in {where}; there are: {known}")
    return read(names[name])


def read(path: Path) -> Folder:
    """What a folder says.

    Raises:
        BridgeError: it says too little, or asks for what no export asks for: code that is not
            transformers', settings, weights from elsewhere.
    """
    try:
        told = json.loads((path / INDEX).read_text(encoding="utf-8"))
        fits = told["export"]["fits"]
        folder = Folder(
            path,
            str(told["id"]),
            str(fits["pipeline"]),
            str(fits["family"]),
            int(fits["width"]),
            int(fits["pooled"]),
            int(fits["layers"]),
            str(told["versions"]["transformers"]),
        )
        reason = refusal(path / TEXT)
    except RecursionError as error:
        raise BridgeError(f"'{path}' is damaged: its JSON is too deep; export it again") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        told = f"it has no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise BridgeError(f"'{path}' is damaged: {told}; export it again") from error
    if reason:
        raise BridgeError(f"'{path}' {reason}")
    return folder
