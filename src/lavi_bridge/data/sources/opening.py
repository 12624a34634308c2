"""From what a user writes as `data` to a source."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from lavi_bridge.data.sources.base import Source
from lavi_bridge.data.sources.finding import is_tar, walk, wrong_kind
from lavi_bridge.data.sources.folder import INDEX, INDEXES, Folder
from lavi_bridge.data.sources.huggingface import HuggingFace
from lavi_bridge.data.sources.mix import Mix
from lavi_bridge.data.sources.tsv import TSV
from lavi_bridge.data.sources.webdataset import WebDataset, shards_of
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import at_home

HUB, SHAPES = "hf:", "shapes"
WEIGHTED = re.compile(r"(?:(?P<weight>\d*\.?\d+)\s*\*\s*)?(?P<data>.+)")
KNOWN = (
    "a caption file (.tsv), a folder of images, of .tar shards or of .parquet files, "
    "hf:OWNER/NAME, or `shapes`"
)


def open_source(data: str, *, seed: int = 0, problems: list[str] | None = None) -> Source:
    """Open what `data` names; `0.6*A + 0.4*B` mixes.

    Args:
        problems: gets what is wrong with lines of caption files instead of an error at the first.

    Raises:
        BridgeError: there is nothing of that name, or it is malformed.
    """
    parts = [part.strip() for part in data.split(" + ")]
    if len(parts) == 1:
        found = WEIGHTED.fullmatch(parts[0])
        return _open(found["data"] if found else data, seed, problems)
    matches = [WEIGHTED.fullmatch(part) for part in parts]
    told = [match["weight"] for match in matches if match and match["weight"]]
    if not all(matches) or len(told) not in (0, len(parts)):
        raise BridgeError(f"'{data}': expected `0.6*FIRST + 0.4*SECOND`, or no weights at all")
    if any(float(weight) == 0 for weight in told):
        raise BridgeError(f"'{data}': a source has no weight; leave it out")
    sources = [_open(match["data"], seed, problems) for match in matches if match]
    return Mix(sources, [float(w) for w in told] or [float(len(s)) for s in sources])


def _open(data: str, seed: int, problems: list[str] | None) -> Source:
    if data == SHAPES or data.startswith(f"{SHAPES}:"):
        from lavi_bridge.shapes.world import Length, ShapesWorld

        lengths = {f"{SHAPES}:{length}": length for length in get_args(Length)}
        free = f"{SHAPES}:free"
        if data == free:
            return ShapesWorld(seed=seed, length="long", free=True)
        if data not in (SHAPES, *lengths):
            known = ", ".join((*lengths, free))
            raise BridgeError(f"no data '{data}': the world's are {SHAPES}, {known}")
        return ShapesWorld(seed=seed, length=lengths.get(data, "mixed"))
    if data.startswith(HUB):
        return HuggingFace(data.removeprefix(HUB))
    path = at_home(data)
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise BridgeError(f"no data '{data}': give {KNOWN}")
    if path.name in INDEXES:
        raise BridgeError(f"'{path}' is the index of a folder: give the folder '{path.parent}'")
    if is_tar(path):
        return WebDataset(path)
    if reason := wrong_kind(path):
        raise BridgeError(f"'{path}' {reason}; data may be {KNOWN}")
    return TSV(path, problems)


def _open_folder(folder: Path) -> Source:
    if (folder / INDEX).is_file():
        return Folder(folder)
    if shards_of(folder):
        return WebDataset(folder)
    saved = any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))
    if saved or any(path.suffix == ".parquet" for path in walk(folder)):
        return HuggingFace(folder)
    return Folder(folder)
